import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type {
  Answer,
  FailureCause,
  ModelServer,
  RecordedRequest,
  Refusal,
  Script,
  ScriptedRequest,
} from "./script.ts";

/** What makes a protocol. */
export interface Protocol {
  /** Of the base URL. */
  readonly version: string;
  /** After the base URL. */
  readonly path: string;
  /** The header that carries the key, and what it must hold. */
  readonly key: (key: string) => readonly [name: string, value: string];
  /** What the real service would refuse, in its words; undefined: nothing. */
  readonly check: (body: JsonObject, request: IncomingMessage) => string | undefined;
  readonly read: (body: JsonObject) => Omit<ScriptedRequest, "number" | "turn" | "task" | "results" | "left">;
  readonly failure: (
    cause: FailureCause,
    message: string | undefined,
  ) => { status: number; body: JsonObject };
  /** The answer, an event at a time. */
  readonly events: (answer: Answer, body: JsonObject, number: number) => AsyncIterable<string>;
  /** The first event of an answer. */
  readonly start: (body: JsonObject, number: number) => string;
}

export interface ModelServerOptions {
  /** Refuses requests without it. Unset: takes any. */
  readonly apiKey?: string;
  /** Unset: any free one. */
  readonly port?: number;
}

const MAX_REQUEST_BYTES = 64 * 1024 * 1024;

export async function startModelServer(
  protocol: Protocol,
  script: Script,
  options: ModelServerOptions,
): Promise<ModelServer> {
  const requests: RecordedRequest[] = [];
  let accepted = 0;

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readJson(request);
    const left = new AbortController();
    response.once("close", () => {
      if (!response.writableFinished) {
        left.abort();
      }
    });
    const refusal = refusalOf(request, body);
    requests.push({ headers: request.headers, body, left: left.signal, refusal: refusal?.message });
    if (refusal) {
      refuse(response, refusal);
      return;
    }
    accepted++;
    const number = accepted;
    const read = protocol.read(body);
    const behaviour = await script({ ...read, ...lastTurn(read.messages), number, left: left.signal });
    switch (behaviour.kind) {
      case "refusal":
        refuse(response, behaviour);
        return;
      case "reset":
        request.socket.destroy();
        return;
      case "silence":
        if (behaviour.started) {
          response.writeHead(200, { "content-type": "text/event-stream" });
          response.write(protocol.start(body, number));
        }
        return;
      case "raw":
        response.writeHead(behaviour.status, { "content-type": behaviour.contentType });
        await write(response, typeof behaviour.body === "string" ? [behaviour.body] : behaviour.body);
        response.end();
        return;
      case "answer":
        response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
        await write(response, protocol.events(behaviour, body, number), behaviour.cutAfterBytes);
        response.end();
    }
  }

  function refusalOf(request: IncomingMessage, body: JsonObject): Refusal | undefined {
    const [name, value] = protocol.key(options.apiKey ?? "");
    if (options.apiKey !== undefined && request.headers[name] !== value) {
      return { kind: "refusal", cause: "unauthenticated" };
    }
    if (request.method !== "POST" || request.url !== `${protocol.version}${protocol.path}`) {
      return { kind: "refusal", cause: "no-model", message: `Not found: ${request.method} ${request.url}` };
    }
    const message = protocol.check(body, request);
    return message === undefined ? undefined : { kind: "refusal", cause: "invalid", message };
  }

  function refuse(response: ServerResponse, refusal: Refusal): void {
    const { status, body } = protocol.failure(refusal.cause, refusal.message);
    response.writeHead(refusal.status ?? status, { "content-type": "application/json", ...refusal.headers });
    response.end(JSON.stringify(body));
  }

  const server = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => {
      // A script that fails must not look like a provider that does.
      response.destroy();
      if (!request.socket.destroyed) {
        throw error;
      }
    });
  });
  server.listen(options.port ?? 0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}${protocol.version}`,
    requests,
    async close() {
      server.closeAllConnections();
      if (server.listening) {
        await new Promise<void>((done) => server.close(() => done()));
      }
    },
  };
}

async function readJson(request: IncomingMessage): Promise<JsonObject> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_REQUEST_BYTES) {
      throw new Error("a request of more than 64 MiB");
    }
    chunks.push(chunk);
  }
  try {
    return asObject(JSON.parse(Buffer.concat(chunks).toString()) as JsonValue);
  } catch {
    return {};
  }
}

/** Writes until the other side has gone, or the connection is to be cut. */
async function write(
  response: ServerResponse,
  pieces: AsyncIterable<string> | Iterable<string>,
  cutAfterBytes = Number.POSITIVE_INFINITY,
): Promise<void> {
  let written = 0;
  for await (const piece of pieces) {
    if (response.destroyed) {
      return;
    }
    const bytes = Buffer.from(piece);
    const part = bytes.subarray(0, cutAfterBytes - written);
    written += part.length;
    const isCut = part.length < bytes.length;
    if (isCut) {
      // Only what has left this process reaches the other side before the end does.
      await new Promise((done) => response.write(part, done));
      response.destroy();
      return;
    }
    if (!response.write(part)) {
      await drained(response);
    }
  }
}

async function drained(response: ServerResponse): Promise<void> {
  const over = new AbortController();
  const { signal } = over;
  await Promise.race([once(response, "drain", { signal }), once(response, "close", { signal })]).finally(() =>
    over.abort(),
  );
}

function lastTurn(messages: ScriptedRequest["messages"]): Pick<ScriptedRequest, "turn" | "task" | "results"> {
  const lastUser = messages.findLastIndex(({ role }) => role === "user");
  const user = messages[lastUser];
  const last = messages.at(-1);
  return {
    turn: 1 + messages.slice(lastUser + 1).filter(({ role }) => role === "assistant").length,
    task: user?.role === "user" ? user.text : "",
    results: last?.role === "tool" ? last.results : [],
  };
}

export function event(data: JsonValue, name?: string): string {
  return `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`;
}

/** Text in the pieces in which models write: words, or, where there is much, blocks. */
export async function* pieces(text: string | AsyncIterable<string> | undefined): AsyncIterable<string> {
  if (text === undefined) {
    return;
  }
  if (typeof text !== "string") {
    yield* text;
    return;
  }
  yield* text.length <= 2_000 ? (text.match(/\s*\S+\s*/g) ?? []) : blocks(text, 16_384);
}

export function blocks(text: string, length: number): string[] {
  const found: string[] = [];
  for (let start = 0; start < text.length; start += length) {
    found.push(text.slice(start, start + length));
  }
  return found;
}

export function asObject(value: JsonValue | undefined): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
}

export function asObjects(value: JsonValue | undefined): JsonObject[] {
  return Array.isArray(value) ? value.map(asObject) : [];
}

export function asText(value: JsonValue | undefined): string {
  return typeof value === "string" ? value : "";
}
