import type { JsonValue } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { isObject } from "../../schema/json.ts";
import type { Model } from "./model.ts";

/** Of a provider's own words, in characters. */
const MAX_WORDS = 1_000;

/** How a provider says that it does not answer. */
export interface ProviderRefusal {
  /** As in HTTP, wherever it was told. */
  readonly status: number;
  /** Such as `overloaded_error`, `insufficient_quota`; empty where it does not say. */
  readonly kinds: readonly string[];
  /** Its own words, without secrets. */
  readonly words: string;
  readonly retryAfterMs?: number | undefined;
}

interface Verdict {
  readonly code: Code;
  readonly reason: string;
  readonly says: string;
}

/** The error that a refusal comes to. */
export function refused(model: Model, refusal: ProviderRefusal): DomainError {
  const { code, reason, says } = judge(model, refusal);
  const words = clip(refusal.words);
  const mayPass = code === Code.Unavailable || code === Code.ResourceExhausted;
  return new DomainError({
    code,
    reason,
    message: `${says}${words === "" ? "" : `: ${words}`}`,
    metadata: { ...facts(model), status: `${refusal.status}` },
    ...(mayPass && refusal.retryAfterMs !== undefined ? { retryAfterMs: refusal.retryAfterMs } : {}),
  });
}

function judge({ name, provider, model }: Model, { status, kinds, words }: ProviderRefusal): Verdict {
  const who = `The provider "${provider}"`;
  if (kinds.includes("insufficient_quota") || status === 402 || /credit balance is too low/i.test(words)) {
    return {
      code: Code.FailedPrecondition,
      reason: "MODEL_CREDIT_USED_UP",
      says: `${who} answers no more: the credit or quota of its account is used up`,
    };
  }
  if (status === 413 || (status < 500 && isTooLong(kinds, words))) {
    return {
      code: Code.InvalidArgument,
      reason: "CONTEXT_TOO_LONG",
      says: `What the model ${name} is to read is longer than it can read`,
    };
  }
  switch (status) {
    case 401:
      return {
        code: Code.Unauthenticated,
        reason: "MODEL_KEY_REFUSED",
        says: `${who} does not take the server's API key`,
      };
    case 403:
      return {
        code: Code.PermissionDenied,
        reason: "MODEL_FORBIDDEN",
        says: `${who} does not allow the use of ${model}`,
      };
    case 404:
      return {
        code: Code.NotFound,
        reason: "MODEL_NOT_FOUND",
        says: `${who} does not know the model ${model}, or its base URL is wrong`,
      };
    case 429:
      return {
        code: Code.ResourceExhausted,
        reason: "MODEL_RATE_LIMITED",
        says: `${who} limits the rate of requests`,
      };
    case 503:
    case 529:
      return { code: Code.Unavailable, reason: "MODEL_OVERLOADED", says: `${who} is overloaded` };
  }
  if (status >= 500 || status === 408 || status === 409 || status === 425) {
    return { code: Code.Unavailable, reason: "MODEL_FAILED", says: `${who} failed` };
  }
  if (status >= 300 && status < 400) {
    return {
      code: Code.FailedPrecondition,
      reason: "MODEL_REDIRECTED",
      says: `${who} redirects to another address, which is not followed: set its base URL to that`,
    };
  }
  return { code: Code.InvalidArgument, reason: "MODEL_REFUSED_REQUEST", says: `${who} refused the request` };
}

function isTooLong(kinds: readonly string[], words: string): boolean {
  return (
    kinds.some((kind) =>
      ["context_length_exceeded", "request_too_large", "exceed_context_size_error"].includes(kind),
    ) ||
    /prompt is too long|input is too long|maximum context|context (length|window|size)|exceeds? the available context/i.test(
      words,
    )
  );
}

/** Reads a refusal from the body of an answer: what the services themselves send, and what servers like them do. */
export function readRefusal(body: JsonValue | undefined): Pick<ProviderRefusal, "kinds" | "words"> {
  const inner = isObject(body) ? (body["error"] ?? body) : body;
  if (typeof inner === "string") {
    return { kinds: [], words: inner };
  }
  const { type, code, message, detail } = isObject(inner) ? inner : {};
  const kinds = [type, code].filter((kind) => typeof kind === "string");
  return { kinds, words: [message, detail].find((words) => typeof words === "string") ?? "" };
}

const STATUSES: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  context_length_exceeded: 400,
  authentication_error: 401,
  invalid_api_key: 401,
  permission_error: 403,
  not_found_error: 404,
  model_not_found: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  rate_limit_exceeded: 429,
  insufficient_quota: 429,
  overloaded_error: 529,
};

/** Reads a refusal that came in the middle of an answer, where there is no status. */
export function readLateRefusal(body: JsonValue | undefined): ProviderRefusal {
  const { kinds, words } = readRefusal(body);
  const inner = isObject(body) ? (body["error"] ?? body) : undefined;
  const told = isObject(inner) ? Number(inner["code"]) : Number.NaN;
  const known = kinds.flatMap((kind) => STATUSES[kind] ?? []);
  // The code says more than the type where both are known.
  const status = told >= 400 && told < 600 ? told : (known.at(-1) ?? 500);
  return { status, kinds, words };
}

export function unreachable(model: Model, cause: unknown): DomainError {
  const code = cause instanceof Error && "code" in cause ? ` (${cause.code})` : "";
  return unavailable(
    model,
    "MODEL_UNREACHABLE",
    `The provider "${model.provider}" cannot be reached${code}: is it up, and is its base URL right?`,
  );
}

export function cutAnswer(model: Model): DomainError {
  return unavailable(
    model,
    "MODEL_ANSWER_CUT",
    `The answer of the provider "${model.provider}" ended before it was whole`,
  );
}

export function silent(model: Model, ms: number): DomainError {
  return unavailable(
    model,
    "MODEL_SILENT",
    `Nothing came from the provider "${model.provider}" for ${ms / 1_000} s`,
  );
}

export function wrongAnswer(model: Model, what: string): DomainError {
  return unavailable(
    model,
    "MODEL_ANSWER_INVALID",
    `The answer of the provider "${model.provider}" cannot be read: ${what}`,
  );
}

export function hugeAnswer(model: Model, limit: number): DomainError {
  return unavailable(
    model,
    "MODEL_ANSWER_TOO_LARGE",
    `The answer of the provider "${model.provider}" has more than ${limit} bytes`,
  );
}

export function shuttingDown(): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "The server shuts down before the model has answered",
  });
}

function unavailable(model: Model, reason: string, message: string): DomainError {
  return new DomainError({ code: Code.Unavailable, reason, message, metadata: facts(model) });
}

function facts({ provider, model }: Model): Readonly<Record<string, string>> {
  return { provider, model };
}

/** Without control characters, which have no place in a log. */
function clip(words: string): string {
  const plain = words.replaceAll(/\p{Cc}+/gu, " ").trim();
  return plain.length > MAX_WORDS ? `${plain.slice(0, MAX_WORDS - 1)}…` : plain;
}
