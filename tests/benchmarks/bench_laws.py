"""Tails, curve laws and onsets beside powerlaw, scipy.curve_fit with BIC, and ruptures (goals B14 to B16).

Accuracy comes first: powerlaw must find the same exponent, threshold and distance, and the published fits of its
reference data must come out. Then our whole fit (scan and 200 synthetic samples) and powerlaw's scan take turns.
Selection of laws and detection of onsets are compared on the same planted curves, whose answer is known.

    python tests/benchmarks/bench_laws.py [--rounds 5] [--curves 300] [--onsets 200] [--quick]
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from importlib import import_module, metadata

import numpy as np
from interleaved import spread, write_result
from planted_curves import LAWS, onset_curves, planted_law
from scipy.optimize import curve_fit

from probes import detect_onset, fit_law, fit_tail, law_values

N_REPLICATES, N_TIMED = 200, 20
PUBLISHED = {  # Clauset, Shalizi and Newman 2009, table 6.1: discrete, xmin, alpha, p
    "words": (True, 7, 1.95, 0.49),
    "terrorism": (True, 12, 2.4, 0.68),
    "blackouts": (True, 230_000, 2.3, 0.62),
    "flares": (True, 323, 1.79, 1.00),
}


def rival(name: str):
    """Return a rival's module and print its version, or say that it is left out."""
    try:
        module = import_module(name)
    except ImportError as error:
        print(f"without {name}: {error}")
        return None
    print(f"{name} {metadata.version(name)}")
    return module


def body_and_tail(n: int, rng: np.random.Generator) -> np.ndarray:
    """Half uniform below one, half a power law of exponent 2.5 above."""
    return np.concatenate([rng.random(n // 2) + 1e-9, (1.0 - rng.random(n - n // 2)) ** (-1.0 / 1.5)])


def published(powerlaw, n_bootstrap: int) -> dict:
    """Fit the reference data that powerlaw ships and print them beside the published values."""
    found = {}
    for name, (discrete, xmin, alpha, p) in PUBLISHED.items():
        path = Path(powerlaw.__file__).parent / "reference_data" / f"{name}.txt"
        if not path.exists():
            print(f"without {name}: no such file")
            continue
        x = np.loadtxt(path)
        fit = fit_tail(x, discrete=discrete, alternatives=(), n_bootstrap=n_bootstrap, rng=np.random.default_rng(0))
        found[name] = {"xmin": fit.xmin, "alpha": fit.alpha, "p": fit.p_value, "published": [xmin, alpha, p]}
        print(f"{name:12s} xmin {fit.xmin:g} ({xmin}), alpha {fit.alpha:.3f} ({alpha}), p {fit.p_value:.2f} ({p})")
    return found


def tails(powerlaw, rounds: int) -> dict:
    """B14: exponent, threshold and p-value of 2000 samples against powerlaw.Fit on the data and 200 replicates."""

    def theirs(x: np.ndarray):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return powerlaw.Fit(x, verbose=False)

    rng = np.random.default_rng(0)
    for _ in range(5):  # the gate, and the warm-up
        x = body_and_tail(2000, rng)
        ours, other = fit_tail(x, alternatives=(), n_bootstrap=0, rng=rng), theirs(x)
        np.testing.assert_allclose(
            [ours.alpha, ours.xmin, ours.distance], [other.alpha, other.xmin, other.D], rtol=1e-9
        )
    ratios, seconds = [], []
    for _ in range(rounds):
        samples = [body_and_tail(2000, rng) for _ in range(N_TIMED)]
        spent = [0.0, 0.0]
        for i, x in enumerate(
            samples
        ):  # ours: a twentieth of the rounds each turn would split one call; so turns of calls
            began = time.process_time()
            theirs(x)
            spent[1] += time.process_time() - began
            if i % (N_TIMED // 4) == 0:
                began = time.process_time()
                fit_tail(x, alternatives=(), n_bootstrap=N_REPLICATES, rng=rng)
                spent[0] += (time.process_time() - began) / 4
        spent[1] *= (N_REPLICATES + 1) / N_TIMED
        seconds.append(spent)
        ratios.append(spent[1] / spent[0])
        print(f"ours {spent[0]:.2f} s, powerlaw {spent[1]:.1f} s: {ratios[-1]:.1f} times", flush=True)
    ours, other = np.array(seconds).T
    return {"ours_s": spread(ours), "powerlaw_s": spread(other), "powerlaw_over_ours": spread(np.array(ratios))}


def curve_fit_choice(t: np.ndarray, y: np.ndarray) -> str:
    """Least BIC over scipy.curve_fit of each law from one plain start; a fit that fails is out."""
    span, level, middle = np.ptp(y) * np.sign(y[-1] - y[0]), y[-1], float(np.sqrt(t[0] * t[-1]))
    forms = {
        "power_law": (("y_inf", "a", "t0", "p"), (level, -span, 0.0, 0.5)),
        "exponential": (("y_inf", "a", "T"), (level, -span, middle)),
        "stretched_exponential": (("y_inf", "a", "T", "beta"), (level, -span, middle, 0.5)),
        "logarithmic": (("a", "b", "t0"), (y[0], span / np.log(t[-1] / t[0]), t[0])),
        "logistic": (("y_0", "a", "t_mid", "width"), (y[0], span, 0.3 * t[-1], 0.05 * t[-1])),
    }
    best, least = "undecided", np.inf
    for law, (names, start) in forms.items():
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")

                def values(t, *q, law=law, names=names):
                    return np.nan_to_num(law_values(law, t, dict(zip(names, q, strict=True))), nan=1e6, posinf=1e6)

                q, _ = curve_fit(values, t, y, start, maxfev=4000)
                rss = float(((y - values(t, *q)) ** 2).sum())
        except RuntimeError:
            continue
        bic = len(t) * np.log(rss) + len(names) * np.log(len(t))
        if bic < least:
            best, least = law, bic
    return best


def selection(n_curves: int) -> dict:
    """B15: law selection on planted curves, 200 points over four decades."""
    t, result = np.geomspace(1, 1e4, 200), {}
    for noise in (0.01, 0.02, 0.05, 0.10):
        rng = np.random.default_rng(7)
        counts = {name: {"right": 0, "undecided": 0, "wrong": 0} for name in ("ours", "curve_fit")}
        for i in range(n_curves):
            law = LAWS[i % len(LAWS)]
            y = planted_law(law, t, rng)
            y = y + noise * np.ptp(y) * rng.standard_normal(len(t))
            choices = {"ours": fit_law(t, y, n_bootstrap=0, rng=rng).preferred, "curve_fit": curve_fit_choice(t, y)}
            for name, choice in choices.items():
                counts[name][choice if choice == "undecided" else "right" if choice == law else "wrong"] += 1
        result[f"{noise:g}"] = counts
        print(f"noise {noise:g}: {counts}", flush=True)
    return result


def onsets(ruptures, n_curves: int) -> dict:
    """B16: error of the onset, and coverage of its interval, on smooth onsets of five kinds at 5 % noise."""
    result = {}
    for grid in ("linear", "log"):
        errors = {"ours": [], "PELT": [], "Dynp": []}
        covered = 0
        for t, y, onset, rng in onset_curves(n_curves, grid, 0.05, 17):

            def error(step, grid=grid, onset=onset):
                return abs(step - onset) if grid == "linear" else abs(np.log(step / onset))

            found = detect_onset(t, y, rng=rng)
            errors["ours"].append(error(found.step if found.found else t[-1]))
            covered += found.interval[0] <= onset <= found.interval[1]
            if ruptures is not None:
                noise = np.diff(y).std() / np.sqrt(2)  # what a user without the truth can know
                shifts = {
                    "PELT": ruptures.Pelt(model="l2", min_size=2, jump=1).fit_predict(y, 3 * np.log(len(y)) * noise**2),
                    "Dynp": ruptures.Dynp(model="clinear", min_size=3, jump=1).fit_predict(y, n_bkps=1),
                }
                for name, at in shifts.items():
                    errors[name].append(error(t[min(at[0], len(t) - 1)]))
        result[grid] = {f"median_error_{name}": float(np.median(e)) for name, e in errors.items() if e}
        result[grid]["coverage"] = covered / n_curves
        print(grid, result[grid], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curves", type=int, default=300)
    parser.add_argument("--onsets", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a look: few curves, nothing written")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.curves, args.onsets = 2, 20, 10
    powerlaw, ruptures = rival("powerlaw"), rival("ruptures")
    result = {"rivals": {m.__name__: metadata.version(m.__name__) for m in (powerlaw, ruptures) if m is not None}}
    if powerlaw is not None:
        result["published"] = published(powerlaw, 40)
        result["tails"] = tails(powerlaw, args.rounds)
    result["selection"] = selection(args.curves)
    result["onsets"] = onsets(ruptures, args.onsets)
    write_result("laws", result, vars(args))


if __name__ == "__main__":
    main()
