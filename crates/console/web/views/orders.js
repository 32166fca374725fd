import { call } from "../api.js";
import { age, clockTime, h, money, notice, Part, short, stateBadge, table } from "../dom.js";

const STATES = ["PENDING", "CONFIRMED", "DONE", "CANCELLING", "CANCELLED"];
/** More orders than this make the list slow to read and to draw. */
const MOST = 100;

export function orders(context) {
  const known = new Map();
  let found = null;
  const problem = h("div", {});
  const state = h("select", { id: "state", onchange: search }, h("option", { value: "" }, "All"), STATES.map((name) => h("option", { value: name }, name)));
  const open = h("input", { type: "checkbox", id: "open", onchange: search });
  const who = h("input", { type: "search", id: "who", autocomplete: "off", spellcheck: false, placeholder: "ord_… or ada@example.com" });

  const list = new Part(h("section", { "aria-label": "Orders" }), (rows) =>
    table(found ? "Found orders" : "The latest orders", ["Order", "State", "Customer", "Total", "Placed", "Open for"],
      rows.map((order) => [
        h("a", { href: `#/orders/${order.id}`, id: `link-${order.id}`, title: order.id }, short(order.id)),
        stateBadge(order.state),
        h("span", { dir: "auto" }, order.customer ?? "–"),
        money(order.total, order.currency),
        h("time", { dateTime: order.placed_at }, clockTime(order.placed_at)),
        order.open ?? !["DONE", "CANCELLED"].includes(order.state) ? age(order.age_seconds) : "",
      ]),
      found ? "No order matches. Look at the address or the id again." : "No order yet. Place one in the shop."));

  function draw() {
    const rows = found ?? [...known.values()].sort((a, b) => (a.placed_at < b.placed_at ? 1 : -1)).slice(0, MOST);
    list.show(rows);
  }

  async function search(event) {
    event?.preventDefault();
    problem.replaceChildren();
    const text = who.value.trim();
    if (text.startsWith("ord_")) {
      location.hash = `#/orders/${text}`;
      return;
    }
    const query = new URLSearchParams();
    if (state.value) query.set("state", state.value);
    if (open.checked) query.set("open", "true");
    if (text) query.set("email", text);
    if ([...query].length === 0) {
      found = null;
      draw();
      return;
    }
    try {
      found = (await call("GET", `/api/orders?${query}`)).orders;
      if (open.checked) found.sort((a, b) => b.age_seconds - a.age_seconds);
    } catch (error) {
      found = [];
      problem.replaceChildren(notice("bad", error.message, error.whatToDo));
    }
    draw();
  }

  context.listeners.add((kind, data) => {
    if (kind !== "orders") return;
    for (const order of data.orders) known.set(order.id, order);
    if (found && data !== context.latest.orders) return;
    if (found) search();
    else draw();
  });
  for (const order of context.known?.values() ?? []) known.set(order.id, order);
  call("GET", "/api/orders").then(({ orders: latest }) => {
    for (const order of latest) known.set(order.id, order);
    draw();
  }, (error) => problem.replaceChildren(notice("bad", error.message, error.whatToDo)));
  draw();
  return {
    elements: [
      h("h1", {}, "Orders"),
      h("form", { className: "filters", role: "search", onsubmit: search },
        h("label", { htmlFor: "state" }, "State", state),
        h("label", { htmlFor: "who" }, "Order or customer", who),
        h("label", { htmlFor: "open", className: "check" }, open, "Open ones, the oldest first"),
        h("button", { type: "submit" }, "Find")),
      problem, list.element,
    ],
  };
}
