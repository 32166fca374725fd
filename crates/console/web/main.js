import { call, listen } from "./api.js";
import { announce, h, notice } from "./dom.js";
import { books } from "./views/books.js";
import { order } from "./views/order.js";
import { orders } from "./views/orders.js";
import { shop } from "./views/shop.js";
import { weather } from "./views/weather.js";

const VIEWS = { shop, orders, weather, books };
const TITLES = { shop: "Shop", orders: "Orders", order: "Order", weather: "Weather", books: "Books" };

/** What every view may use: the stack, and what was pushed last. */
const context = { stack: null, latest: {}, listeners: new Set() };

const view = document.getElementById("view");
let leave = () => {};

function route() {
  const [, name = "", id = ""] = decodeURIComponent(location.hash).match(/^#\/([^/]*)\/?(.*)$/) ?? [];
  if (name === "orders" && id) return ["order", () => order(context, id)];
  if (VIEWS[name]) return [name, () => VIEWS[name](context)];
  return null;
}

function show({ isFirst = false } = {}) {
  const found = route();
  if (!found) {
    // A link to a place in the page, such as the one that skips the navigation, is no view.
    if (location.hash && !location.hash.startsWith("#/")) return;
    location.replace("#/shop");
    return;
  }
  const [name, open] = found;
  leave();
  context.listeners.clear();
  for (const link of document.querySelectorAll("nav a")) {
    const own = link.getAttribute("href") === `#/${name === "order" ? "orders" : name}`;
    if (own) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name]} · Holdfast console`;
  const opened = open();
  leave = opened.leave ?? (() => {});
  view.replaceChildren(...opened.elements);
  for (const [kind, data] of Object.entries(context.latest)) for (const listener of context.listeners) listener(kind, data);
  if (!isFirst) {
    view.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function push(kind, data) {
  context.latest[kind] = data;
  for (const listener of context.listeners) listener(kind, data);
}

const booksSignal = document.getElementById("books-signal");
function showBooks(state) {
  const [kind, text] = state.green ? ["good", "✓ Books balance"] : state.working ? ["open", "… Orders in progress"] : ["bad", "✗ Books do not balance"];
  booksSignal.className = `signal ${kind}`;
  booksSignal.textContent = text;
}

const weatherSignal = document.getElementById("weather-signal");
function showWeather(state) {
  const count = state.active?.length ?? 0;
  weatherSignal.hidden = count === 0;
  weatherSignal.className = "signal back";
  weatherSignal.textContent = count === 1 ? `☂ ${state.active[0].title}` : `☂ ${count} kinds of weather`;
}

const connection = document.getElementById("connection");
listen("", {
  orders: (data) => push("orders", data),
  books: (data) => { showBooks(data); push("books", data); },
  weather: (data) => { showWeather(data); push("weather", data); },
  storm: (data) => push("storm", data),
}, (isOpen) => {
  connection.hidden = isOpen;
  connection.textContent = isOpen ? "" : "The console does not answer. Start it again with make console; this page then continues by itself.";
});

try {
  context.stack = await call("GET", "/api/stack");
  const { endpoint, version, commit, through_proxy: throughProxy } = context.stack;
  document.getElementById("stack").textContent =
    `Stack at ${endpoint}, version ${version}${commit && commit !== "unknown" ? ` (${commit.slice(0, 8)})` : ""}. ` +
    (throughProxy ? "The functions' calls pass through the console, which can disturb them (Weather)." : "The functions' calls do not pass through the console, so it cannot disturb all of them (Weather).");
  window.addEventListener("hashchange", () => show());
  show({ isFirst: true });
} catch (problem) {
  view.replaceChildren(h("h1", {}, "No stack"), notice("bad", problem.message, problem.whatToDo));
  announce(problem.message);
}
