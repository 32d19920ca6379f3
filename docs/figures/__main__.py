"""Draw all figures of docs/how_it_works.md: ``make figures``."""

import runpy
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = HERE.parent / "images" / "how_it_works"

for script in sorted(HERE.glob("draw_*.py")):
    picture = PICTURES / f"{script.stem.removeprefix('draw_')}.png"
    runpy.run_path(str(script))["draw"](picture)
    print(picture.relative_to(HERE.parents[1]))
