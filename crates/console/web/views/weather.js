import { call } from "../api.js";
import { announce, h, notice, Part, prose } from "../dom.js";

const PHASES = {
  idle: "No storm yet.",
  preparing: "A hundred customers sign up.",
  storm: "The storm is on: customers order, and the weather changes every few seconds.",
  clearing: "The weather is over. The open orders are being finished.",
  over: "The storm is over.",
  stopped: "The storm was stopped.",
  failed: "The storm could not be carried out.",
};

export function weather(context) {
  const outcome = h("div", {});
  const targets = {};

  const act = (work) => async () => {
    outcome.replaceChildren();
    try {
      const answer = await work();
      if (answer?.note) announce(answer.note);
    } catch (problem) {
      outcome.replaceChildren(notice("bad", problem.message, problem.whatToDo));
    }
  };

  const active = new Part(h("section", { className: "card", "aria-labelledby": "active-title" }), ({ active: now, last }) => [
    h("h2", { id: "active-title" }, "Now"),
    now.length === 0
      ? h("p", { className: "empty" }, "The sun shines.")
      : [
        h("ul", { className: "active" }, now.map((entry) => h("li", {},
          h("span", {}, h("strong", {}, entry.title), entry.target ? ` (${entry.target})` : "", `. It has hit ${entry.hits} ${entry.hits === 1 ? "request" : "requests"}.`,
            entry.note ? ` ${entry.note}` : "", entry.ends_at ? h("span", { className: "hint" }, ` Clears itself at ${new Date(entry.ends_at).toLocaleTimeString()}.`) : null),
          h("button", { type: "button", id: `clear-${entry.id}`, onclick: act(() => call("DELETE", `/api/weather/${entry.id}`)) },
            "Clear", h("span", { className: "visually-hidden" }, ` ${entry.title}`))))),
        h("button", { type: "button", id: "clear-all", onclick: act(() => call("DELETE", "/api/weather")) }, "Clear all"),
      ],
    last?.length ? h("details", { id: "last-weather" }, h("summary", {}, "Before"), h("ul", {}, last.slice(0, 10).map((entry) =>
      h("li", {}, `${entry.title}${entry.target ? ` (${entry.target})` : ""}: ${entry.note ?? `${entry.hits} hits`}`)))) : null,
  ]);

  const kinds = new Part(h("section", { "aria-labelledby": "kinds-title" }), (all) => [
    h("h2", { id: "kinds-title" }, "Make weather"),
    h("ul", { className: "kinds" }, all.map((kind) => {
      const select = kind.targets.length > 1
        ? h("label", {}, h("span", {}, "What", h("span", { className: "visually-hidden" }, ` (${kind.title})`)),
          h("select", { id: `target-${kind.id}`, onchange: (event) => { targets[kind.id] = event.target.value; } },
            kind.targets.map((target) => h("option", { value: target.id, selected: targets[kind.id] === target.id }, target.name))))
        : null;
      const start = () => call("POST", "/api/weather", { kind: kind.id, target: targets[kind.id] ?? kind.targets[0]?.id });
      return h("li", { className: "card" },
        h("h3", {}, kind.title),
        h("p", {}, prose(kind.what_it_does)),
        h("p", { className: "hint" }, h("strong", {}, "What ought to happen: "), prose(kind.what_should_happen)),
        kind.disabled ? h("p", { className: "notice" }, prose(kind.disabled)) : null,
        h("div", { className: "actions" }, select,
          h("button", { type: "button", id: `start-${kind.id}`, disabled: Boolean(kind.disabled), onclick: act(start) },
            kind.seconds ? `Start for ${kind.seconds} s` : "Do it", h("span", { className: "visually-hidden" }, `: ${kind.title}`))));
    })),
  ]);

  const storm = new Part(h("section", { className: "card", "aria-labelledby": "storm-title" }), (state) => {
    const isRunning = ["preparing", "storm", "clearing", "books"].includes(state.phase);
    const isOver = state.phase === "over";
    return [
      h("h2", { id: "storm-title" }, "Storm"),
      h("p", {}, "A hundred customers order for a minute, in weather that is drawn by lot. Then the weather clears, the open orders are finished, and the books are added up."),
      h("p", { className: "states" }, state.phase === "clearing" && state.open === 0 && state.placed > 0 ? "No order is open. The last messages are being delivered." : PHASES[state.phase] ?? state.phase,
        isRunning && state.seconds_left ? ` ${state.seconds_left} s are left.` : "",
        state.seed ? h("span", { className: "hint" }, ` Seed ${state.seed}.`) : null),
      state.placed || isRunning ? h("dl", { className: "numbers" }, [["Placed", state.placed], ["Done", state.done], ["Cancelled", state.cancelled], ["Open", state.open]]
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : null,
      isOver ? notice(state.green ? "good" : "bad", state.green ? "The books balance." : "The books do not balance.", state.green ? "No order was lost, charged twice or left half done." : "Look at the books.") : null,
      state.error ? notice("bad", state.error, "") : null,
      isRunning
        ? h("button", { type: "button", id: "storm-button", onclick: act(() => call("DELETE", "/api/storm")) }, "Stop the storm")
        : h("button", { type: "button", className: "main", id: "storm-button", onclick: act(() => call("POST", "/api/storm", {})) }, "Start a storm"),
      state.weather?.length ? h("details", { id: "storm-log", open: isRunning }, h("summary", {}, "What the weather did"), h("ol", { className: "log" }, state.weather.map((line) => h("li", {}, line)))) : null,
    ];
  });

  let phase;
  context.listeners.add((kind, data) => {
    if (kind === "weather") {
      active.show({ active: data.active ?? [], last: data.last });
      if (data.kinds) kinds.show(data.kinds);
    }
    if (kind === "storm") {
      storm.show(data);
      if (data.phase !== phase) {
        phase = data.phase;
        if (phase !== "idle") announce(PHASES[phase] ?? phase);
      }
    }
  });
  call("GET", "/api/weather").then((state) => {
    active.show({ active: state.active ?? [], last: state.last });
    kinds.show(state.kinds);
    if (!state.through_proxy && state.reason) outcome.replaceChildren(notice("", "Some weather is not available.", state.reason));
  }, (problem) => outcome.replaceChildren(notice("bad", problem.message, problem.whatToDo)));
  storm.show(context.latest.storm ?? { phase: "idle" });
  return {
    elements: [
      h("h1", {}, "Weather"),
      h("p", { className: "lead" }, "Weather is what you break on purpose. Watch the shop recover: all weather ends by itself."),
      outcome, h("div", { className: "pair" }, active.element, storm.element), kinds.element,
    ],
  };
}
