// Builds elements. Text is always set as text, never as HTML: names and reasons are what people typed.

/** Returns an element. A property that begins with `on` is a listener; `class`, `for` and `aria-*` are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && !name.includes("-")) element[name] = value;
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** A part of a view, which is drawn anew only when what it shows has changed. */
export class Part {
  #shown;
  constructor(element, draw) {
    this.element = element;
    this.draw = draw;
  }

  show(data) {
    const text = JSON.stringify(data ?? null);
    if (text === this.#shown) return;
    this.#shown = text;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.id : "";
    const opened = [...this.element.querySelectorAll("details[open]")].map((details) => details.id);
    this.element.replaceChildren(...[this.draw(data)].flat(Infinity).filter(Boolean));
    for (const id of opened.filter(Boolean)) document.getElementById(id)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

let announced;
/** Has a screen reader say a text, once. */
export function announce(text) {
  if (text === announced) return;
  announced = text;
  document.getElementById("announcer").textContent = text;
}

/** A table with a caption. Each cell is a text or an element. */
export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return h("p", { className: "empty" }, empty);
  return h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    h("table", {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col" }, column)))),
      h("tbody", {}, rows.map((cells) =>
        h("tr", {}, cells.map((cell, index) =>
          index === 0 ? h("th", { scope: "row" }, cell) : h("td", {}, cell)))))));
}

export function notice(kind, title, text) {
  return h("div", { className: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" }, h("p", {}, h("strong", {}, prose(title)), text ? [" ", prose(text)] : ""));
}

/** A text in which commands stand between backticks. */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 === 1 ? h("code", {}, part) : part));
}

/** An amount with its currency. A number gets the decimals that its currency has. */
export function money(amount, currency) {
  if (amount === undefined || amount === null) return "–";
  if (typeof amount !== "number" || !currency) return `${amount} ${currency ?? ""}`.trim();
  const { maximumFractionDigits: decimals } = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions();
  return `${amount.toFixed(decimals)} ${currency}`;
}

/** A length of time, as people say it. */
export function duration(milliseconds) {
  if (milliseconds === undefined || milliseconds === null) return "";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return age(milliseconds / 1000);
}

export function age(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export function clockTime(text) {
  return text ? new Date(text).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }) : "";
}

/** The first part of an id is enough to tell two orders apart. */
export function short(id) {
  return id.length > 16 ? `${id.slice(0, 4)}…${id.slice(-8)}` : id;
}

const STATES = {
  PENDING: ["open", "Pending"],
  CONFIRMED: ["open", "Confirmed"],
  DONE: ["good", "Done"],
  CANCELLING: ["back", "Cancelling"],
  CANCELLED: ["off", "Cancelled"],
};

export function stateBadge(state) {
  const [kind, name] = STATES[state] ?? ["off", state];
  return h("span", { className: `badge ${kind}` }, name);
}
