"""The published figures of the recurrent network beside ours."""

from __future__ import annotations

from typing import Any

from ..page import Section

PUBLISHED = {
    "none": {"error": "0.033", "n_active": "356", "wiring_count": "2.0e6", "isolated": "0.686 (z -0.6)"},
    "l1": {"error": "0.031", "n_active": "131", "wiring_count": "1.0e5", "isolated": "0.636 (z -0.9)"},
    "full": {"error": "0.031", "n_active": "109", "wiring_count": "2.0e4", "isolated": "0.393 (z -5.2)"},
}
"""Read off the figures of Liu, Khona, Fiete & Tegmark 2023 (arXiv 2310.07711): one network an arm, no error bars.
Isolated units there are by index, in one dimension."""


def published_table(summary: dict[str, Any]) -> Section:
    """Ours and theirs, side by side, at the price with the least error."""
    rows = [["arm", "", "error", "active units", "wire (gaps)", "isolated by index"]]
    for arm, published in PUBLISHED.items():
        entries = [entry for entry in summary["arms"] if entry["arm"] == arm]
        if not entries:
            continue
        ours = min(entries, key=lambda entry: entry["error"]["mean"])
        rows.append(
            [arm, "published", *(published[name] for name in ("error", "n_active", "wiring_count", "isolated"))]
        )
        index = ours.get("isolated_by_index", {"mean": None})["mean"]
        z = ours.get("isolated_by_index_z", {"mean": None})["mean"]
        rows.append(
            [
                "",
                "ours",
                f"{ours['error']['mean']:.3f}",
                f"{ours['n_active']['mean']:.0f}",
                f"{ours['wiring_count']['mean']:.2g}",
                "–" if index is None or z is None else f"{index:.3f} (z {z:.1f})",
            ]
        )
    text = (
        "The published numbers are read off figures, of one network each. What differs: the price of wire, the length "
        "of training and the threshold of an active unit are not published, and ours are our own choice; the count of "
        "wire is inferred to be the summed length of connections that are not negligible, in gaps of the grid."
    )
    return Section("Beside the published figures", text, table=rows)
