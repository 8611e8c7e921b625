"""The study the README's first command ran found what the README says it finds."""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
summary = json.loads((folder / "summary.json").read_text())
heads = [h for h in summary["heads"] if h["is_contact_head"]]
assert heads, "no contact head in the standard study"
assert not any(h["is_contact_head"] for h in summary["controls"]), "a control shows a contact head"
page = (folder / "report.html").read_text()
assert "<svg" in page
assert 'src="http' not in page
assert 'href="http' not in page
seconds = sum(summary["seconds"].values())
print(f"{len(heads)} contact heads, best precision {max(h['contact_ap'] for h in heads):.2f}, {seconds:.0f} s")
