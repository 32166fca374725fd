"""Places orders through a client that openapi-python-client has generated.

The generated client is the package `holdfast_client`, which PYTHONPATH must
contain. HOLDFAST_API is the address of the public API, and HOLDFAST_TOKEN is the
customer's token. At least one product must be in stock.
"""

import os
import time
import uuid

from holdfast_client import AuthenticatedClient, models
from holdfast_client.api.orders import get_order, list_orders, place_order
from holdfast_client.api.products import list_products
from holdfast_client.models import FieldError, NewOrder, NewOrderItem, Order, Problem

PATIENCE = 120


def wait_for(what, look):
    """Calls `look` until it returns something other than None. Returns this result."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(1)
    raise SystemExit(f"{what}: not within {PATIENCE} seconds")


def place(client, product, payment_method):
    """Repeats a request for an order, with the same key, until the order is decided."""
    body = NewOrder(items=[NewOrderItem(product_id=product.id, quantity=1)], payment_method=payment_method)
    key = str(uuid.uuid4())

    def ask():
        answer = place_order.sync_detailed(client=client, body=body, idempotency_key=key)
        is_open = answer.status_code in (202, 429, 500, 503)
        is_open = is_open or getattr(answer.parsed, "code", None) == "idempotency_in_flight"
        return None if is_open else answer

    first = wait_for("an order that is decided", ask)
    again = wait_for("the same answer", ask)
    assert (first.status_code, first.content) == (again.status_code, again.content), (first, again)
    return first


def main():
    # All refusals must have one type, so that a client can handle them in one
    # place.
    problems = [name for name in dir(models) if "Problem" in name]
    assert problems == ["Problem"], problems

    client = AuthenticatedClient(base_url=os.environ["HOLDFAST_API"], token=os.environ["HOLDFAST_TOKEN"], timeout=60)
    with client:
        page = list_products.sync(client=client, limit=100)
        product = next(product for product in page.items if product.stock > 0)

        order = place(client, product, "tok_accepted").parsed
        assert isinstance(order, Order), order
        assert order.items[0].product_id == product.id and order.currency == product.currency, order

        def done():
            read = get_order.sync(client=client, id=order.id)
            assert isinstance(read, Order), read
            return read if read.status.value == "DONE" else None

        wait_for("an order that is done", done)
        listed = list_orders.sync(client=client, status=models.OrderStatus.DONE)
        assert order.id in [listed.id for listed in listed.items], listed

        declined = place(client, product, "tok_declined").parsed
        assert isinstance(declined, Problem), declined
        assert (declined.status, declined.code) == (402, "payment_declined"), declined
        assert declined["reason"], declined

        refused = place_order.sync(client=client, body=NewOrder(items=[]))
        assert isinstance(refused, Problem) and refused.code == "invalid_request", refused
        assert [type(error) for error in refused.errors] == [FieldError], refused
        assert refused.errors[0].field == "items", refused
    print(f"{order.id} was placed and is done; a declined card and an invalid order each gave a Problem")


if __name__ == "__main__":
    main()
