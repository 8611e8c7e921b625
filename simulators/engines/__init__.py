"""One file an integrator; ``simulate`` chooses among them and loads numba only when one runs."""
