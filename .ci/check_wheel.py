"""The wheel holds exactly the three packages, typed, and nothing of tests or notebooks."""

import sys
import zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
assert tops == {"emergence", "simulators", "probes"}, tops
for package in tops:
    assert f"{package}/py.typed" in names, f"{package}/py.typed is missing"
assert "emergence/report/templates/report.html.j2" in names
print("wheel holds", ", ".join(sorted(tops)))
