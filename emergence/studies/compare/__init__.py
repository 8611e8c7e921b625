"""Any set of study runs side by side: what emerged, when, at what cost."""
