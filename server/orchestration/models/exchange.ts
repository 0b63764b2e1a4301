import type { IncomingHttpHeaders } from "node:http";
import type { JsonValue } from "@bufbuild/protobuf";
import type { Clock } from "@toolplane/framework";
import { type Dispatcher, request } from "undici";
import type { ModelProviderSettings } from "../../config/orchestration.ts";
import { withoutKeys } from "./api-key.ts";
import { cutAnswer, hugeAnswer, readRefusal, refused, silent, unreachable, wrongAnswer } from "./errors.ts";
import type { Model } from "./model.ts";
import { retryAfterMs } from "./retry-after.ts";

/** Of a whole answer. */
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** Of a refusal; the rest is not read. */
const MAX_REFUSAL_BYTES = 1024 * 1024;

/** One request to a provider, and what guards it. */
export interface Exchange {
  /** For the library that speaks the protocol. Rejects with DomainErrors for all that is not the beginning of an answer. */
  readonly fetch: typeof globalThis.fetch;
  /** Whether anything was sent. */
  readonly hasBegun: boolean;
  scrub(text: string): string;
  /** Breaks off what still runs. */
  end(): void;
}

export interface ExchangeOptions {
  readonly model: Model;
  readonly provider: ModelProviderSettings;
  readonly apiKey: string | undefined;
  readonly dispatcher: Dispatcher;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export function createExchange(options: ExchangeOptions): Exchange {
  const { model, provider, apiKey, dispatcher, clock, signal } = options;
  const breakOff = new AbortController();
  const onAbort = () => breakOff.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  let stopWatching = () => {};
  let hasBegun = false;

  function watchSilence(): () => void {
    let last = clock.monotonic();
    const wait = (ms: number) => {
      stopWatching = clock.after(ms, () => {
        const quiet = clock.monotonic() - last;
        if (quiet >= provider.silenceMs) {
          breakOff.abort(silent(model, provider.silenceMs));
        } else {
          wait(provider.silenceMs - quiet);
        }
      });
    };
    wait(provider.silenceMs);
    return () => {
      last = clock.monotonic();
    };
  }

  async function fetch(
    input: Parameters<typeof globalThis.fetch>[0],
    init: RequestInit = {},
  ): Promise<Response> {
    signal.throwIfAborted();
    hasBegun = true;
    const heard = watchSilence();
    const answer = await request(String(input), {
      method: "POST",
      headers: authorized(init.headers, provider, apiKey),
      // The libraries send JSON.
      body: String(init.body),
      dispatcher,
      signal: breakOff.signal,
      // The silence of all of an answer is watched here, with the injected clock.
      headersTimeout: 0,
      bodyTimeout: 0,
    }).catch((error: unknown) => {
      throw breakOff.signal.aborted ? breakOff.signal.reason : unreachable(model, error);
    });
    heard();
    if (answer.statusCode !== 200) {
      throw refusal(answer.statusCode, answer.headers, await readStart(answer.body, heard));
    }
    const type = String(answer.headers["content-type"] ?? "");
    if (!/^text\/event-stream\b/i.test(type)) {
      throw notStreamed(type, await readStart(answer.body, heard));
    }
    return new Response(ReadableStream.from(bounded(answer.body, heard)), {
      status: answer.statusCode,
      headers: { "content-type": type },
    });
  }

  async function* bounded(body: AsyncIterable<Uint8Array>, heard: () => void): AsyncGenerator<Uint8Array> {
    let size = 0;
    try {
      for await (const chunk of body) {
        heard();
        size += chunk.length;
        if (size > MAX_ANSWER_BYTES) {
          throw hugeAnswer(model, MAX_ANSWER_BYTES);
        }
        yield chunk;
      }
    } catch (error) {
      if (breakOff.signal.aborted) {
        throw breakOff.signal.reason;
      }
      throw size > MAX_ANSWER_BYTES ? error : cutAnswer(model);
    }
  }

  /** As much as a refusal needs; whatever breaks, the status has already said it all. */
  async function readStart(body: AsyncIterable<Uint8Array>, heard: () => void): Promise<string> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const chunk of body) {
        heard();
        chunks.push(chunk);
        size += chunk.length;
        if (size >= MAX_REFUSAL_BYTES) {
          break;
        }
      }
    } catch {
      signal.throwIfAborted();
    }
    return Buffer.concat(chunks).subarray(0, MAX_REFUSAL_BYTES).toString();
  }

  function refusal(status: number, headers: IncomingHttpHeaders, text: string): Error {
    const isPlain = String(headers["content-type"]).startsWith("text/plain");
    const { kinds, words } = readRefusal(parseJson(text) ?? (isPlain ? text : undefined));
    return refused(model, {
      status,
      kinds,
      words: withoutKeys(words, apiKey),
      retryAfterMs: retryAfterMs(headers, clock.now()),
    });
  }

  /** Some servers send refusals as if they were answers. */
  function notStreamed(type: string, text: string): Error {
    const { kinds, words } = readRefusal(parseJson(text));
    const what = `it is ${type === "" ? "of no type" : JSON.stringify(type.slice(0, 100))} instead of an event stream; is its base URL right?`;
    return words === "" && kinds.length === 0
      ? wrongAnswer(model, what)
      : refused(model, { status: 500, kinds, words: withoutKeys(words, apiKey) });
  }

  return {
    fetch,
    get hasBegun() {
      return hasBegun;
    },
    scrub: (text) => withoutKeys(text, apiKey),
    end() {
      stopWatching();
      signal.removeEventListener("abort", onAbort);
      breakOff.abort();
    },
  };
}

/** The key enters here and nowhere else, so that no library can tell it to anyone. */
function authorized(
  headers: RequestInit["headers"],
  { protocol }: ModelProviderSettings,
  apiKey: string | undefined,
): Record<string, string> {
  const all = new Headers(headers);
  all.delete("x-api-key");
  all.delete("authorization");
  if (apiKey !== undefined) {
    const [name, value] =
      protocol === "anthropic" ? ["x-api-key", apiKey] : ["authorization", `Bearer ${apiKey}`];
    all.set(name, value);
  }
  return Object.fromEntries(all);
}

/** Undefined: it is no JSON. */
export function parseJson(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}
