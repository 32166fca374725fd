import { ask, call, listen } from "../api.js";
import { announce, clockTime, duration, h, money, notice, Part, short, stateBadge, table } from "../dom.js";

const STEP_STATES = {
  waiting: ["○", "waiting"],
  running: ["◐", "running"],
  done: ["✓", "done"],
  failed: ["✗", "failed"],
  undone: ["↺", "undone"],
  not_needed: ["–", "not needed"],
};

const STORY = {
  PENDING: "The order is stored, and its steps run. If a process dies now, the worker takes the order over: within two minutes it is confirmed or cancelled.",
  CONFIRMED: "The pivot has passed: the customer has the order. Each step that follows is repeated until it succeeds or is refused for good.",
  DONE: "Every step has succeeded, each exactly once.",
  CANCELLING: "The shop goes the way back: each compensation is repeated until it succeeds.",
  CANCELLED: "Everything that was done is undone. No stock is kept, and no money.",
};

const COMPENSATION = "A compensation undoes a step. It runs even if the step has perhaps never happened: then it makes sure that the step has no effect if it arrives late.";

/** What the steps of the way back do that undo nothing. */
const AFTER_COMPENSATION = {
  "find recipient": "needed if the order was cancelled before its user was validated",
  "publish OrderCreated": "needed if the order was confirmed, and its first message is not out yet",
  "publish OrderCancelled": "tells the customer, unless the response has done so",
};

function time(step) {
  // The pivot is one write, at one moment.
  if (step.phase === "pivot") return clockTime(step.ended_at);
  if (!step.started_at || !step.ended_at) return "";
  return duration(Date.parse(step.ended_at) - Date.parse(step.started_at));
}

/** `idle` is what to call a step that will not run any more. */
function stepCard(step, idle) {
  const [mark, name] = step.state === "waiting" && idle ? ["○", idle] : STEP_STATES[step.state];
  return h("li", { className: `step ${step.state}` },
    h("span", { className: "mark", "aria-hidden": "true" }, mark),
    h("span", { className: "what" },
      h("span", { className: "title" }, step.title),
      h("span", { className: "detail" }, [name, time(step), step.attempts > 1 ? `${step.attempts} attempts` : ""].filter(Boolean).join(" · ")),
      step.undoes?.length ? h("span", { className: "detail" }, `undoes: ${step.undoes.join(", ")}`) : null,
      step.phase === "way_back" && AFTER_COMPENSATION[step.name] ? h("span", { className: "detail" }, AFTER_COMPENSATION[step.name]) : null,
      step.error ? h("span", { className: "detail error" }, step.error) : null));
}

/** The steps of a phase, stage by stage. The steps of one stage run side by side. `idle` says why a step that waits will not run. */
function stages(steps, idle) {
  const numbers = [...new Set(steps.map((step) => step.stage))].sort((a, b) => a - b);
  return h("ol", { className: "stages" }, numbers.map((number) => {
    const own = steps.filter((step) => step.stage === number);
    return h("li", {}, h("ul", { className: own.length > 1 ? "stage together" : "stage" }, own.map((step) => stepCard(step, idle))));
  }));
}

function phase(className, title, explanation, content) {
  return h("section", { className: `phase ${className}` }, h("h3", {}, title), h("p", { className: "hint" }, explanation), content);
}

function drawSaga({ steps, pivot, compensation, state }) {
  const isOnWayBack = state === "CANCELLING" || state === "CANCELLED";
  const notReached = isOnWayBack ? "not reached" : null;
  return [
    h("h2", {}, "The saga"),
    h("div", { className: "saga" },
      phase("before", "Before the pivot →", "Each step can be undone.", stages(steps.filter((step) => step.phase === "before"), notReached)),
      phase("pivot", "The pivot →", "One write decides: the order is confirmed, and the customer is told so.", h("ul", { className: "stage" }, stepCard(pivot, notReached))),
      phase("after", "After the pivot", "Each step is repeated until it succeeds. Only a refusal for good, or somebody who cancels the order, leads to the way back.", stages(steps.filter((step) => step.phase === "after"), notReached))),
    steps.some((step) => step.attempts > 1 && step.state === "done")
      ? notice("good", "A step was tried again.", "Each attempt carries the id of the same order, so what an earlier attempt has done is found, and not done a second time.")
      : null,
    phase(isOnWayBack ? "back taken" : "back", "← The way back",
      isOnWayBack
        ? `${COMPENSATION} Each was repeated until it succeeded, or still is. Then the customer is told.`
        : `${COMPENSATION} If the order is refused or cancelled, each is repeated until it succeeds. Then the customer is told.`,
      h("div", { className: "reverse" }, stages(compensation, state === "DONE" ? "not needed" : null))),
    h("details", { id: "why" },
      h("summary", {}, "Why a killed payment neither loses money nor takes it twice"),
      h("p", {}, "If a process dies in the middle of a payment, nobody knows whether the money was taken. The shop does not guess. The payment's id is derived from the order, so the next process asks for the same payment under the same id, and the provider answers with what it has already done. If the order is cancelled instead, the compensation leaves a mark under that id (a tombstone), and a payment that arrives later is refused.")),
  ];
}

function drawTrace(spans) {
  if (spans.length === 0) return [h("h2", {}, "Trace"), h("p", { className: "empty" }, "No span was written yet.")];
  const end = Math.max(1, ...spans.map((span) => span.start_ms + (span.duration_ms ?? 0)));
  const depths = new Map();
  for (const span of spans) depths.set(span.span_id, span.parent_id && depths.has(span.parent_id) ? depths.get(span.parent_id) + 1 : 0);
  return [
    h("h2", {}, "Trace"),
    h("p", { className: "hint" }, `One request, through all functions, and what follows it: ${duration(end)}. What the stream or the queue has started is marked (linked): nobody waits for it. A write that is refused with 400 has found that its condition does not hold, for example because an earlier attempt has written the same.`),
    h("ol", { className: "trace", role: "list" }, spans.map((span) => {
      const bar = h("span", { className: `bar-line${span.failed ? " failed" : ""}${span.duration_ms === null || span.duration_ms === undefined ? " unfinished" : ""}` });
      bar.style.marginInlineStart = `${(span.start_ms / end) * 100}%`;
      bar.style.inlineSize = `${Math.max(0.4, ((span.duration_ms ?? end - span.start_ms) / end) * 100)}%`;
      const name = h("span", { className: "span-name" },
        h("span", { className: "service" }, span.service), " ", span.label ?? span.name,
        span.links?.length ? h("span", { className: "detail" }, " (linked)") : null,
        span.remark ? h("span", { className: "detail error" }, ` ${span.remark}`) : null);
      name.style.paddingInlineStart = `${Math.min(6, depths.get(span.span_id))}em`;
      const length = span.duration_ms === null || span.duration_ms === undefined ? "never ended" : duration(span.duration_ms);
      return h("li", {}, name, h("span", { className: "track", "aria-hidden": "true" }, bar),
        h("span", { className: "length" }, `${length}${span.failed ? ", failed" : ""}`));
    })),
  ];
}

function drawMessages({ messages, isToldByResponse }) {
  return [
    h("h2", {}, "What the customer gets"),
    messages.length === 0
      ? h("p", { className: "empty" }, isToldByResponse ? "No message was sent: the customer knows it already, from the response to the request." : "No message was sent.")
      : h("ul", { className: "messages" }, messages.map((message) => h("li", { className: "card" },
        message.channel === "email"
          ? [
            h("h3", { dir: "auto" }, message.subject ?? "E-mail"),
            h("p", { className: "hint" }, `E-mail to ${message.to}`),
            h("iframe", { title: `E-mail: ${message.subject}`, sandbox: "", src: message.html_url }),
          ]
          : [h("h3", {}, "Text message"), h("p", { className: "hint" }, `To ${message.to}`), h("p", { className: "sms", dir: "auto" }, message.text)]))),
  ];
}

function facts(title, entries) {
  const known = entries.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("div", { className: "card" }, h("h3", {}, title),
    known.length === 0 ? h("p", { className: "empty" }, "None.") : h("dl", {}, known.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

export function order(context, id) {
  const head = new Part(h("div", {}), ({ order: current }) => [
    h("p", { className: "states" }, stateBadge(current.state), " ",
      h("span", {}, [money(current.total, current.currency), current.customer, current.reason ? `because ${current.reason_in_words ?? "of"} (${current.reason})` : ""].filter(Boolean).join(" · "))),
    h("p", { className: "lead" }, STORY[current.state] ?? ""),
  ]);
  head.element.append(h("p", { className: "empty" }, "The order is being read."));
  const actions = new Part(h("div", { className: "actions" }), (state) =>
    ["CANCELLING", "CANCELLED"].includes(state)
      ? []
      : h("button", { type: "button", id: "cancel-order", onclick: cancel }, "Cancel this order as Ada"));
  const outcome = h("div", {});
  const saga = new Part(h("section", { "aria-label": "Saga" }), drawSaga);
  const lines = new Part(h("div", {}), (items) =>
    table("Lines", ["Product", "Quantity", "Unit price", "Total"],
      items.map((line) => [h("span", { dir: "auto" }, line.name ?? short(line.product_id)), line.quantity, line.unit_price ?? "–", line.line_total ?? "–"]), "No lines."));
  const history = new Part(h("section", { "aria-label": "History" }), (entries) => [
    h("h2", {}, "History"),
    h("ol", { className: "history" }, entries.map((entry) => h("li", {}, h("time", { dateTime: entry.at }, clockTime(entry.at)), " ", stateBadge(entry.status),
      entry.reason ? ` ${typeof entry.reason === "string" ? entry.reason : entry.reason.code ?? ""}` : ""))),
  ]);
  const records = new Part(h("section", { "aria-label": "Reservation and payment" }), ({ reservation, payment }) => [
    h("h2", {}, "Reservation and payment"),
    h("div", { className: "pair" },
      facts("Reservation", [["State", reservation?.status], ["Reserved at", clockTime(reservation?.reserved_at)], ["Released at", clockTime(reservation?.released_at)]]),
      facts("Payment", [
        ["Id", payment && h("code", {}, payment.id)], ["State", payment?.status], ["Amount", payment && money(payment.amount, payment.currency)],
        ["Declined because of", payment?.decline_reason], ["Captured at the provider", payment?.provider?.captured], ["Refunded at the provider", payment?.provider?.refunded],
      ])),
  ]);
  const messages = new Part(h("section", { "aria-label": "Messages" }), drawMessages);
  const trace = new Part(h("section", { "aria-label": "Trace" }), drawTrace);
  const raw = new Part(h("section", { "aria-label": "Stored data" }), (stored) =>
    h("details", { id: "raw" }, h("summary", {}, "The stored items, in JSON"), h("pre", { tabIndex: 0 }, JSON.stringify(stored, null, 2))));
  let state;

  async function cancel() {
    outcome.replaceChildren();
    const answer = await ask("POST", `/as/ada/orders/${encodeURIComponent(id)}/cancel`).catch((problem) => ({ status: 0, body: { detail: problem.message } }));
    if (answer.status < 200 || answer.status >= 300) {
      outcome.replaceChildren(notice("bad", answer.body?.detail ?? `The shop answered with ${answer.status}.`, answer.body?.code === "not_found" ? "Ada can cancel only her own orders." : ""));
    }
  }

  function show(document) {
    const current = document.order;
    if (current.state !== state) {
      state = current.state;
      announce(`The order is ${state.toLowerCase()}.`);
    }
    head.show({ order: { state: current.state, total: current.total, currency: current.currency, customer: current.customer, reason: current.reason, reason_in_words: current.reason_in_words } });
    actions.show(current.state);
    saga.show({ steps: document.steps, pivot: document.pivot, compensation: document.compensation, state: current.state });
    lines.show(current.lines ?? []);
    history.show(document.history ?? []);
    records.show({ reservation: document.reservation, payment: document.payment });
    messages.show({ messages: document.messages ?? [], isToldByResponse: current.told_by_response });
    trace.show(document.trace ?? []);
    raw.show(document.raw);
  }

  const end = listen(`?order=${encodeURIComponent(id)}`, { order: show });
  call("GET", `/api/orders/${encodeURIComponent(id)}`).then(show, (problem) => {
    head.element.replaceChildren();
    outcome.replaceChildren(notice("bad", problem.message, problem.whatToDo));
  });

  return {
    elements: [
      h("h1", {}, "Order ", h("code", { className: "id" }, id)),
      head.element, actions.element, outcome, saga.element, lines.element, history.element, records.element, messages.element, trace.element, raw.element,
    ],
    leave: end,
  };
}
