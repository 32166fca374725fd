import { call } from "../api.js";
import { announce, h, notice, Part, table } from "../dom.js";

function verdict(isRight, right = "balances", wrong = "does not balance") {
  return h("span", { className: `badge ${isRight ? "good" : "bad"}` }, isRight ? `✓ ${right}` : `✗ ${wrong}`);
}

function amount(minor, decimals, currency) {
  return `${(minor / 10 ** decimals).toFixed(decimals)} ${currency}`;
}

const QUEUES = { dead_letter: "order events", user_events_dead_letter: "user events" };

function whatMoves({ open_orders: open }) {
  if (open === 0) return "A message is on its way.";
  return `${open} ${open === 1 ? "order is" : "orders are"} open. The sums are final once nothing is open.`;
}

export function books(context) {
  const outcome = h("div", {});
  const sums = new Part(h("div", {}), (state) => [
    state.green
      ? notice("good", "The books balance.", "Nothing is open, and every sum is right.")
      : state.working
        ? notice("open", "The books are moving.", whatMoves(state))
        : notice("bad", "The books do not balance.", "The rows in red say where."),
    h("section", { "aria-labelledby": "stock-title" },
      h("h2", { id: "stock-title" }, "Stock"),
      h("p", { className: "hint" }, "Initial stock + adjustments = available + reserved. A sold unit stays counted as reserved."),
      table("Stock of each product", ["Product", "Initial", "Adjustments", "Available", "Reserved", "Verdict"],
        state.products.map((product) => [h("span", { dir: "auto" }, product.name), product.initial, product.adjustments, product.available, product.reserved, verdict(product.balanced)]), "The catalogue is empty.")),
    h("section", { "aria-labelledby": "money-title" },
      h("h2", { id: "money-title" }, "Money"),
      h("p", { className: "hint" }, "What the provider has captured and kept = the totals of all done orders."),
      table("Money of each currency", ["Currency", "Captured and kept", "Done orders", "In flight", "Verdict"],
        state.money.map((row) => [row.currency, amount(row.captured_and_kept, row.decimals, row.currency), amount(row.done_orders, row.decimals, row.currency), amount(row.in_flight ?? 0, row.decimals, row.currency), verdict(row.balanced)]), "No money was taken yet.")),
    h("section", { "aria-labelledby": "events-title" },
      h("h2", { id: "events-title" }, "Events and dead letters"),
      h("p", { className: "hint" }, "Each confirmed order has one event, and no event is in a dead-letter queue."),
      table("Numbers of events", ["What", "Number", "Verdict"], [
        ["Orders that were confirmed", state.events.confirmed, ""],
        ["Orders whose event has reached the notifier", state.events.out, state.working && !state.events.balanced ? h("span", { className: "badge open" }, "… moving") : verdict(state.events.balanced)],
        ...state.dead_letters.map(({ queue, count }) => [`Dead letters of ${QUEUES[queue] ?? queue}`, count, verdict(count === 0, "none", "look at them")]),
      ], "")),
  ]);
  let was;
  const show = (state) => {
    sums.show(state);
    const now = state.green ? "The books balance." : state.working ? "The books are moving." : "The books do not balance.";
    if (was && now !== was) announce(now);
    was = now;
  };
  context.listeners.add((kind, data) => { if (kind === "books") show(data); });
  if (!context.latest.books) call("GET", "/api/books").then(show, (problem) => outcome.replaceChildren(notice("bad", problem.message, problem.whatToDo)));
  return {
    elements: [
      h("h1", {}, "Books"),
      h("p", { className: "lead" }, "If no order is lost, charged twice or left half done, these sums are right. They are read from the tables and from the provider, and added up again after each change."),
      outcome, sums.element,
    ],
  };
}
