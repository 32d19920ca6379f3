"""A server and a client: a scan streams in as a scanner would send it, maps come back as MRD images.

One learns how to start the server in a process of one's own (`mrf serve` is the same), how to send a scan and a
choice with it, and what comes back: series, units and scales.

    python examples/scanner_server.py [SCAN.h5] [--maps t1,t2] [-o FOLDER] [--small]
"""

import argparse
import sys
import threading
from pathlib import Path

import ismrmrd
import numpy as np
from matplotlib.figure import Figure

import mrf
from mrf.io.mrd import read_table
from mrf.phantom import acquire, add_noise, brain, signals, spiral
from mrf.server.asked import Asked
from mrf.server.desk import Desk
from mrf.server.images import scaled
from mrf.server.send import exchange, scan_messages, write_images
from mrf.server.serve import Server


def simulated(path: Path, size: int, frames: int, arms: int) -> Path:
    """A scan of the numerical brain as an MRD file."""
    phantom, sequence = brain(size, 4), mrf.preset("jiang2015_fisp", n_frames=frames)
    trajectory = spiral(frames, size, phantom.field_of_view[0], n_arms=arms, inner=arms / 2, n_samples=5 * size)
    kspace, noise = add_noise(acquire(phantom, trajectory, signals(phantom, sequence)), 0.02)
    mrf.write_mrd(path, kspace, trajectory, sequence=sequence, noise=noise)
    return path


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Start, send, look, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "scan", type=Path, nargs="?", metavar="SCAN.h5", help="an MRD file (default: a numerical brain)"
    )
    parser.add_argument("--maps", default="t1,t2", help="what is asked for, e.g. t1 or t1,t2,pd (default: t1,t2)")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the images")
    parser.add_argument("--small", action="store_true", help="a small scan")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    size, frames, arms = (32, 100, 8) if told.small else (96, 500, 32)
    scan = told.scan or simulated(told.output / "scan.h5", size, frames, arms)

    asked = Asked(deadline=600.0)  # s: nobody lies in a scanner here
    server = Server("127.0.0.1", 0, Desk(), asked=asked)  # this machine only; port 0: any that is free
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        xml, table = read_table(scan)
        messages = scan_messages(xml, table, "mrf", {"maps": told.maps, "slice_profile": "none"})
        received = exchange(("127.0.0.1", server.port), messages)
    finally:
        server.close(5.0)
        thread.join()
    print("\n".join(f"the server: {text}" for text in received.texts))
    if not received.images:
        raise SystemExit("scanner_server: no image came back; what the server said is above")
    write_images(told.output / "images.h5", received.images, xml)

    found, figure = {"images": float(len(received.images))}, Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, len(received.images), squeeze=False)[0]
    for axes, image in zip(panels, received.images, strict=True):
        words, values = ismrmrd.Meta.deserialize(image.attributes), scaled(image)[0, 0]
        name, unit = words["SeriesDescription"], "" if words["Units"] == "1" else words["Units"]
        found[name] = float(np.nanmedian(values))
        print(f"{name}: {image.data.shape[-1]} x {image.data.shape[-2]}, median {found[name]:.4g} {unit}".rstrip())
        figure.colorbar(axes.imshow(values, vmax=2 * found[name]), ax=axes)
        axes.set(title=f"{name} ({unit})" if unit else name, xticks=[], yticks=[])
    figure.savefig(told.output / "scanner_server.png")
    print(told.output / "scanner_server.png")
    return found


if __name__ == "__main__":
    try:
        main()
    except mrf.MrfError as error:
        sys.exit(str(error))
