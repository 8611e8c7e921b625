"""Findings in sentences: what was found, how surely, and what was not."""

from __future__ import annotations

from typing import Any

from simulators import System


def scene_sentence(system: System) -> str:
    """What moves, and where."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(system).__name__).strip()
    if system.dim == 2:
        words = words.replace("spheres", "discs")
    where = "a box" if system.dim == 2 else "a box in three dimensions"
    pulled = " under gravity" if any(getattr(system, "gravity", ())) else ""
    if words in _PLACES:
        return f"{system.n_particles} soft {'discs' if system.dim == 2 else 'spheres'} move in {_PLACES[words]}."
    return f"{system.n_particles} {words} move in {where}{pulled}."


_PLACES = {"rotating box": "a rotating box", "vibrated box": "a box that is shaken"}


def verdict(summary: dict[str, Any]) -> str:
    """One sentence on contact heads, and one on the controls."""
    found = [h for h in summary["heads"] if h["is_contact_head"]]
    seeds = {h["seed"] for h in found}
    if found:
        best = max(found, key=lambda h: h["contact_ap"])
        low, high = best["contact_ap_interval"]
        first = (
            f"{_count(len(found), 'contact head')} in {len(seeds)} of {_count(len(summary['seeds']), 'seed')}; "
            f"the best, head {best['layer']}.{best['head']}, has average precision "
            f"{best['contact_ap']:.2f} [{low:.2f}, {high:.2f}] (nearest neighbour {best['nearest_neighbor_ap']:.2f}, "
            f"chance {best['chance_ap']:.2f}), and cutting its edge to the true partner raises the loss by "
            f"{best['edge_knockout_partner'] / best['knockout_baseline_loss']:.0%}."
        )
    else:
        best = max(summary["heads"], key=lambda h: h["contact_ap"])
        first = f"No head met all criteria; the best average precision was {best['contact_ap']:.2f}."
    return f"{first} {controls(summary)}"


def controls(summary: dict[str, Any]) -> str:
    """What the controls showed."""
    said = []
    for name in dict.fromkeys(h["control"] for h in summary["controls"]):
        heads = [h for h in summary["controls"] if h["control"] == name]
        passed = sum(h["is_contact_head"] for h in heads)
        said.append(f"{name}: {passed} contact heads (best precision {max(h['contact_ap'] for h in heads):.2f})")
    return f"Controls: {'; '.join(said)}."


def law_sentence(law: dict[str, Any]) -> str:
    """One fitted law in words, its doubts included."""
    if law["window"] is None:
        return f"{law['quantity']}: undecided; {law['reason']}."
    low, high, decades = law["window"]
    where = f"from training time {low:.3g} to {high:.3g} ({decades:.1f} decades)"
    if law["preferred"] == "undecided":
        return f"{law['quantity']}: undecided {where}; {law['reason']}"
    weight = law["weights"].get(law["preferred"])
    text = f"{law['quantity']}: {law['preferred'].replace('_', ' ')} (weight {weight:.2f}) {where}"
    if law["preferred"] == "power_law" and law["exponent"] is not None:
        ends = [("unbounded" if end is None else f"{end:.2f}") for end in law["interval"]]
        text += f", exponent {law['exponent']:.2f} [{ends[0]}, {ends[1]}]"
    return text + "."


def potential_sentence(potential: dict[str, Any]) -> str:
    """The effective potential in words."""
    if potential["k"] is None:
        return f"Effective potential (seed {potential['seed']}): undecided; {potential['reason']}."
    low, high = (("unbounded" if end is None else f"{end:.1f}") for end in potential["k_interval"])
    return f"Effective potential (seed {potential['seed']}): degree k = {potential['k']:.1f} [{low}, {high}]."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
