"""The orders of the demo: their stages, the messages that announce them, and what is in a message.

Everything follows from the seed, so that the planner knows every message id before a system has sent anything.
"""

from __future__ import annotations

import json
import uuid
from random import Random

# The stages in the order of an order's life, each with the system that announces it.
STAGES = {
    "INITIATED": "shop",
    "FILE_UPLOADED": "shop",
    "SUBMITTED": "shop",
    "PRICE_CALCULATED": "mes",
    "MANUFACTURING_APPROVED": "crm",
    "MANUFACTURING_STARTED": "mes",
    "MANUFACTURING_COMPLETED": "mes",
    "PACKAGING": "mes",
    "SHIPPED": "mes",
    "CLOSED": "crm",
}

# With this the CRM asks the MES for a price. It announces no stage, as not every message between two systems does.
PRICE_REQUEST = "PRICE_REQUEST"

_CUSTOMERS = ("anna", "bruno", "chiara", "dmitri", "elif", "farid", "greta", "hana")
_MESSAGE_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:auditor:demo")


def order_id(number: int) -> str:
    """The id of the order with that number, counted from 1."""
    return f"A-{number:05d}"


def message_id(seed: int, order: str, kind: str) -> str:
    """The id of the message by which an order enters a stage (or of its price request)."""
    return str(uuid.uuid5(_MESSAGE_IDS, f"{seed}/{order}/{kind}"))


def body(seed: int, order: str, kind: str) -> bytes:
    """The JSON body of a message: the order, its stage, and the customer."""
    about = {"id": order} if kind == PRICE_REQUEST else {"id": order, "stage": kind}
    customer = Random(f"{seed}/{order}").choice(_CUSTOMERS)
    return json.dumps({"order": about, "user": customer}).encode()
