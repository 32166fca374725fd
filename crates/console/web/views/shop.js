import { ask, call, listen } from "../api.js";
import { announce, h, money, notice, Part } from "../dom.js";

/** What a newcomer can do to the order at the moment of ordering. Each entry is weather that the console knows. */
const MEANWHILE = [
  { id: "nothing", text: "Nothing is broken." },
  { id: "kill_halfway", target: "payments", text: "Kill the payments service in the middle: it has authorised the payment, and dies before it can say so." },
  { id: "payments_dead", target: "payments", text: "The payments service is dead for half a minute." },
  { id: "lose_answer", target: "service:products", text: "The stock is reserved, and the answer gets lost." },
];

/** The basket outlives a change of the view. */
const basket = new Map();

export function shop(context) {
  const catalogue = h("section", { "aria-labelledby": "catalogue-title" },
    h("h2", { id: "catalogue-title" }, "Catalogue"), h("p", { className: "empty" }, "The catalogue is being read."));
  const side = h("section", { className: "card basket", "aria-labelledby": "basket-title" });
  const outcome = h("div", {});
  let products = [];
  let isOrdering = false;
  let card = context.stack.test_cards[0]?.token;
  let meanwhile = "nothing";
  let stopWaiting = () => {};

  const drawBasket = () => {
    const lines = [...basket].filter(([, quantity]) => quantity > 0);
    const named = lines.map(([id, quantity]) => [products.find((product) => product.id === id), quantity]).filter(([product]) => product);
    const weather = context.latest.weather?.kinds ?? [];
    const isDisabled = (id) => weather.find((kind) => kind.id === id)?.disabled;
    side.replaceChildren(
      h("h2", { id: "basket-title" }, "Basket"),
      named.length === 0
        ? h("p", { className: "empty" }, "Choose a product and its quantity.")
        : h("ul", { className: "lines" }, named.map(([product, quantity]) => h("li", {}, `${quantity} × ${product.name}`))),
      h("fieldset", {}, h("legend", {}, "Pay with"),
        context.stack.test_cards.map(({ token, name, what_it_does: what }) =>
          h("label", { className: "choice" },
            h("input", { type: "radio", name: "card", value: token, checked: token === card, onchange: () => { card = token; } }),
            h("span", {}, h("strong", {}, name), h("span", { className: "hint" }, what))))),
      h("fieldset", {}, h("legend", {}, "Meanwhile"),
        MEANWHILE.map(({ id, text }) => {
          const disabled = isDisabled(id);
          return h("label", { className: "choice" },
            h("input", { type: "radio", name: "meanwhile", value: id, checked: id === meanwhile, disabled: Boolean(disabled), onchange: () => { meanwhile = id; } }),
            h("span", {}, text, disabled ? h("span", { className: "hint" }, disabled) : null));
        })),
      h("button", { type: "button", className: "main", id: "place-order", disabled: isOrdering || named.length === 0, onclick: place },
        isOrdering ? "Ordering…" : "Order as Ada"),
      outcome);
  };

  const setQuantity = (id, quantity) => {
    basket.set(id, Math.max(0, Math.min(10_000, Number.isFinite(quantity) ? Math.trunc(quantity) : 0)));
    drawBasket();
  };

  const list = new Part(catalogue, (items) => [
    h("h2", { id: "catalogue-title" }, "Catalogue"),
    items.length === 0
      ? h("p", { className: "empty" }, "The catalogue is empty. Use POST /products as Grace in the API view to add a product.")
      : h("ul", { className: "products" }, items.map((product) => h("li", { className: "card" },
        h("h3", { dir: "auto" }, product.name),
        h("p", { className: "description", dir: "auto" }, product.description),
        h("p", { className: "price" }, money(product.price, product.currency), " · ", h("span", {}, `${product.stock} in stock`)),
        h("label", { className: "quantity" }, h("span", {}, "Quantity", h("span", { className: "visually-hidden" }, ` of ${product.name}`)),
          h("input", {
            type: "number", id: `quantity-${product.id}`, min: 0, max: 10_000, step: 1, value: String(basket.get(product.id) ?? 0), inputMode: "numeric",
            oninput: (event) => setQuantity(product.id, event.target.valueAsNumber),
          }))))),
  ]);

  async function load() {
    try {
      const answer = await call("GET", "/api/products");
      products = answer.products ?? answer.items ?? answer;
      list.show(products);
    } catch (problem) {
      catalogue.replaceChildren(h("h2", { id: "catalogue-title" }, "Catalogue"), notice("bad", problem.message, problem.whatToDo));
    }
    drawBasket();
  }

  async function place() {
    const lines = [...basket].filter(([, quantity]) => quantity > 0).map(([product_id, quantity]) => ({ product_id, quantity }));
    isOrdering = true;
    outcome.replaceChildren();
    drawBasket();
    announce("The order is being placed.");
    const choice = MEANWHILE.find(({ id }) => id === meanwhile);
    try {
      if (choice.target) await call("POST", "/api/weather", { kind: choice.id, target: choice.target });
      // The order is shown as soon as it is stored: its saga runs while the request still waits for its answer.
      const began = Date.now() - 1500;
      stopWaiting();
      let isFirst = true;
      stopWaiting = listen("", {
        orders: ({ orders }) => {
          const own = isFirst ? null : orders.find(({ customer, placed_at: placedAt }) => (customer ?? "Ada").startsWith("Ada") && Date.parse(placedAt) >= began);
          isFirst = false;
          if (own) open(own.id);
        },
      });
      const answer = await ask("POST", "/api/orders", { lines, card, idempotency_key: crypto.randomUUID() });
      const id = answer.body?.id ?? answer.body?.order_id;
      basket.clear();
      if (id) return open(id);
      const { title, detail, what_to_do: whatToDo, errors } = answer.body ?? {};
      const fields = (errors ?? []).map(({ field, detail: why }) => `${field} ${why}`).join("; ");
      outcome.replaceChildren(notice("bad", detail ?? title ?? `The shop answered with ${answer.status}.`, fields || whatToDo || ""));
    } catch (problem) {
      outcome.replaceChildren(notice("bad", problem.message, problem.whatToDo));
    }
    stopWaiting();
    isOrdering = false;
    drawBasket();
  }

  function open(id) {
    stopWaiting();
    const target = `#/orders/${id}`;
    if (location.hash.startsWith("#/shop")) location.hash = target;
  }

  context.listeners.add((kind) => { if (kind === "weather" && !isOrdering && !side.contains(document.activeElement)) drawBasket(); });
  load();
  return {
    elements: [
      h("h1", {}, "Shop"),
      h("p", { className: "lead" }, "Order something as Ada, and make it fail on the way. Whatever happens, the order ends as done or as cancelled: nothing is lost, and nothing is charged twice."),
      h("div", { className: "columns" }, catalogue, side),
    ],
    leave: () => stopWaiting(),
  };
}
