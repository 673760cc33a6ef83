"""How long the pages take on a big ledger, in the server: python -m tests.web.bench LEDGER

Make one with `python -m tests.ledger.synthetic LEDGER 1000000`.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from tests.web.conftest import Serving
from tests.web.test_pages import get

TIMES = 10


def main(ledger: Path) -> None:
    """Ask for each page a few times, and print the median and the longest."""
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as conn:
        order, message = conn.execute("SELECT order_id, message_id FROM lost ORDER BY random() LIMIT 1").fetchone()
    pages = {
        "overview": "/",
        "lost": "/lost",
        "lost, filtered": "/lost?" + urlencode({"flow": "crm->mes", "reason": "queue_empty", "acknowledged": "no"}),
        "lost of an order": "/lost?" + urlencode({"order": order}),
        "orders": "/orders",
        "orders, stuck": "/orders?stuck=yes",
        "order": "/order?" + urlencode({"id": order}),
        "message": "/message?" + urlencode({"id": message}),
        "found": "/find?" + urlencode({"q": message}),
        "not found": "/find?q=unheard-of",
        "audit": "/status",
        "engine: lost": "/ledger/lost",
        "engine: an order's story": "/ledger/order_story?" + urlencode({"order_id": order}),
    }
    with tempfile.TemporaryDirectory() as folder, Serving(ledger, "", Path(folder)) as served:
        for name, page in pages.items():
            took, code = [], 0
            for _ in range(TIMES):
                began = time.perf_counter()
                code, _, _ = get(served.url + page)
                took.append((time.perf_counter() - began) * 1000)
            sys.stdout.write(f"{name:26} {code} {statistics.median(took):7.0f} ms {max(took):7.0f} ms\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
