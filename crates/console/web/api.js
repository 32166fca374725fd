// Requests to the console, and the stream of what changes. The page never asks repeatedly: the console pushes.

export class Problem extends Error {
  constructor(title, whatToDo, status, body) {
    super(title);
    this.whatToDo = whatToDo;
    this.status = status;
    this.body = body;
  }
}

async function send(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem("The console does not answer.", "Start it again with `make console`, and reload this page.", 0);
  }
  const text = await response.text();
  let document = null;
  try {
    document = text ? JSON.parse(text) : null;
  } catch {
    document = null;
  }
  return { status: response.status, body: document };
}

/** Sends a request, and returns the body. An answer that is no success is an error. */
export async function call(method, path, body) {
  const answer = await send(method, path, body);
  if (answer.status >= 200 && answer.status < 300) return answer.body;
  const { title, what_to_do: whatToDo, detail } = answer.body ?? {};
  throw new Problem(title ?? `The console answered with ${answer.status}.`, whatToDo ?? detail ?? "Reload this page.", answer.status, answer.body);
}

/** Sends a request whose refusal is an answer, too. */
export const ask = send;

/** Listens to what changes. `listeners` has a function for each kind of event. Returns a function that ends it. */
export function listen(query, listeners, onConnection = () => {}) {
  const source = new EventSource(`/api/events${query}`);
  for (const [kind, listener] of Object.entries(listeners)) {
    source.addEventListener(kind, (event) => listener(JSON.parse(event.data)));
  }
  source.addEventListener("open", () => onConnection(true));
  source.addEventListener("error", () => onConnection(false));
  return () => source.close();
}
