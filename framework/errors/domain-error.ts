import { Code } from "@connectrpc/connect";

/** A field of a request that is not as it must be. */
export interface FieldViolation {
  /** Path from the request's root, such as `service.name` or `calls[3].arguments.city`; empty: the request itself. */
  readonly field: string;
  /** What is wrong and what would be right. */
  readonly description: string;
  /** A stable reason in UPPER_SNAKE_CASE. */
  readonly reason?: string;
}

/** Something that has to be changed before a request can succeed. */
export interface PreconditionViolation {
  /** The kind of precondition in UPPER_SNAKE_CASE, such as `CONFIGURATION`. */
  readonly type: string;
  /** What it is about, such as an environment variable. */
  readonly subject: string;
  /** What to do. */
  readonly description: string;
}

/** A limit that was reached. */
export interface QuotaViolation {
  /** What the limit is on, such as `caller:user:ada` or `service:acme.weather.v1.WeatherService`. */
  readonly subject: string;
  /** The limit in words, such as `200 requests in 60 s, 20 at once`. */
  readonly description: string;
}

export interface DomainErrorInit {
  readonly code: Code;
  /** A stable reason in UPPER_SNAKE_CASE; sent as `google.rpc.ErrorInfo.reason`. */
  readonly reason: string;
  /** What happened and what to do, for people. Sent to the caller: no internals, no secrets. */
  readonly message: string;
  /** Further facts for machines; sent as `google.rpc.ErrorInfo.metadata`. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Sent as `google.rpc.BadRequest`. */
  readonly fields?: readonly FieldViolation[];
  /** Sent as `google.rpc.ResourceInfo`. */
  readonly resource?: { readonly type: string; readonly name: string };
  /** Sent as `google.rpc.PreconditionFailure`. */
  readonly preconditions?: readonly PreconditionViolation[];
  /** Sent as `google.rpc.RetryInfo`, in milliseconds. */
  readonly retryAfterMs?: number;
  /** Sent as `google.rpc.QuotaFailure`. */
  readonly quotas?: readonly QuotaViolation[];
  /** Sent as headers, or as trailers where the protocol puts an error's metadata there; such as `Retry-After`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The cause is logged with the correlation id and never sent. */
  readonly cause?: unknown;
}

/**
 * An error that a caller is meant to see. Domain code throws it; `toConnectError` is the only place that turns it into
 * what goes over the wire.
 */
export class DomainError extends Error {
  override readonly name = "DomainError";
  readonly init: DomainErrorInit;

  constructor(init: DomainErrorInit) {
    super(init.message, { cause: init.cause });
    this.init = init;
  }
}

/** A request whose fields are not as they must be. */
export function invalidArgument(fields: readonly FieldViolation[], cause?: unknown): DomainError {
  return new DomainError({
    code: Code.InvalidArgument,
    reason: "INVALID_FIELDS",
    message: fields
      .map(({ field, description }) => (field ? `${field}: ${description}` : description))
      .join("; "),
    fields,
    cause,
  });
}

/** A thing that does not exist. `hint` says what to do about it. */
export function notFound(type: string, name: string, hint?: string): DomainError {
  return new DomainError({
    code: Code.NotFound,
    reason: `${type.toUpperCase().replaceAll(/[^A-Z0-9]+/g, "_")}_NOT_FOUND`,
    message: `${type} "${name}" does not exist${hint ? `: ${hint}` : ""}`,
    resource: { type, name },
  });
}
