import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, type Interceptor } from "@connectrpc/connect";
import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionAlpha } from "@toolplane/gen/grpc/reflection/v1alpha/reflection_pb.js";
import { type Clock, systemClock } from "../clock.ts";
import { domainConnectError } from "../errors/connect-error.ts";
import type { Gate } from "../interceptors/begin-call.ts";
import { callContextKey, type Principal, principalKey, type Role } from "../interceptors/call-context.ts";
import { callRecordKey } from "../interceptors/call-record.ts";
import { followRevocation } from "./follow-revocation.ts";
import { includesRole, type RequiredRole, roleOf as roleOfMethod } from "./role-of.ts";
import { limitStrangers } from "./stranger-limit.ts";
import type { Identity, RefusalReason, Verdict, Verifier } from "./verifier.ts";

export interface AuthenticateOptions {
  /** Asked in turn until one takes the token. */
  readonly verifiers: readonly Verifier[];
  /** What a caller of a method needs. Default: what the method's options say, see `roleOf`. */
  readonly roleOf?: (method: DescMethod) => RequiredRole;
  /**
   * Fully qualified names of services that anyone may call, whatever `roleOf` says. Default: `grpc.health.v1.Health` and
   * both versions of `grpc.reflection`.
   */
  readonly exempt?: ReadonlySet<string>;
  /**
   * How many calls that need no credentials may run at once, `grpc.health.v1.Health/Check` not counted; more are refused
   * with RESOURCE_EXHAUSTED. Whoever has no credentials could otherwise take all the places that a server has, with
   * streams that stay open. Default: 500, a quarter of what `serve()` takes.
   */
  readonly maxStrangers?: number;
  readonly clock?: Clock;
}

/** One check of who calls, in the forms in which servers can use it. */
export interface Authentication {
  /** For `serve()`: refuses before a request's body is read, and sets `CallContext.principal`. */
  readonly gate: Gate;
  /** For any other Connect server: refuses before the handler runs, and sets `principalKey`. */
  readonly interceptor: Interceptor;
  /**
   * For plain HTTP handlers: resolves to who calls, or rejects with the ConnectError to answer.
   *
   * @param authorization the value of the header; null or undefined when there is none
   * @param what names what is asked for in errors, such as `/metrics`
   */
  check(authorization: string | null | undefined, required: RequiredRole, what: string): Promise<Principal>;
}

const openServices: ReadonlySet<string> = new Set([
  Health.typeName,
  ServerReflection.typeName,
  ServerReflectionAlpha.typeName,
]);

/** Whoever calls what is open to everyone: nobody asked for their name, and nothing else follows from the call. */
const stranger: Principal = { id: "anonymous", role: "reader" };

/**
 * Asks every caller for a bearer token in the header `authorization`, and whether its role is enough for the method.
 *
 * Streams are checked when they begin, before their first message is read. The gate also ends those whose credentials were
 * revoked, within a minute; credentials that come to their end as they were meant to do not end them.
 *
 * A call from within the process (`Server.localClient`) acts for the principal that it was made for, and its headers are
 * not looked at; made for nobody, it needs credentials like any other.
 */
export function authenticate(options: AuthenticateOptions): Authentication {
  const { verifiers, exempt = openServices, roleOf = roleOfMethod, clock = systemClock } = options;
  const admitStranger = limitStrangers(options.maxStrangers);

  const requiredFor = (method: DescMethod) =>
    exempt.has(method.parent.typeName) ? "public" : roleOf(method);

  async function check(
    authorization: string | null | undefined,
    required: RequiredRole,
    what: string,
  ): Promise<Principal> {
    return required === "public"
      ? stranger
      : permit(await identify(verifiers, authorization ?? null), required, what);
  }

  function admit(
    method: DescMethod,
    header: Headers,
    local: Principal | undefined,
    signal: AbortSignal,
  ): Principal | Promise<Principal> {
    const required = requiredFor(method);
    if (required === "public") {
      if (local === undefined) {
        admitStranger(method, signal);
      }
      return local ?? stranger;
    }
    const what = `${method.parent.typeName}/${method.name}`;
    if (local !== undefined) {
      return permit(local, required, what);
    }
    const identity = identify(verifiers, header.get("authorization"));
    return identity instanceof Promise
      ? identity.then((found) => permit(found, required, what))
      : permit(identity, required, what);
  }

  return {
    check,
    gate(call, context) {
      const { method, requestHeader, signal } = context;
      const local = context.values.get(callRecordKey)?.principal;
      function admitted(principal: Principal): void {
        call.principal = principal;
        if (method.methodKind !== "unary" && local === undefined && requiredFor(method) !== "public") {
          followRevocation(context, clock, () => identify(verifiers, requestHeader.get("authorization")));
        }
      }
      const principal = admit(method, requestHeader, local, signal);
      return principal instanceof Promise ? principal.then(admitted) : admitted(principal);
    },
    interceptor: (next) => async (request) => {
      const { contextValues, method, header, signal } = request;
      const local = contextValues.get(callRecordKey)?.principal;
      const principal = await admit(method, header, local, signal);
      contextValues.set(principalKey, principal);
      const call = contextValues.get(callContextKey);
      if (call !== undefined) {
        call.principal = principal;
      }
      return await next(request);
    },
  };
}

/** Whom the header's token stands for; no promise where no verifier needs one. Throws UNAUTHENTICATED. */
function identify(
  verifiers: readonly Verifier[],
  authorization: string | null,
): Identity | Promise<Identity> {
  if (authorization === null || authorization === "") {
    throw unauthenticated("CREDENTIALS_MISSING", "no credentials were sent");
  }
  const token = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (token === undefined) {
    throw unauthenticated(
      "CREDENTIALS_MALFORMED",
      "the authorization header does not consist of the word Bearer and a token",
    );
  }
  return askFrom(0, verifiers, token, undefined);
}

type Refusal = Extract<Verdict, { kind: "refused" }>;

/** Asks the verifiers from one on. What was refused first is what the caller is told. */
function askFrom(
  start: number,
  verifiers: readonly Verifier[],
  token: string,
  refused: Refusal | undefined,
): Identity | Promise<Identity> {
  let refusal = refused;
  for (let index = start; index < verifiers.length; index++) {
    const verdict = verifiers[index]?.verify(token);
    if (verdict instanceof Promise) {
      const before = refusal;
      return verdict.then((later) =>
        later.kind === "accepted"
          ? later.identity
          : askFrom(index + 1, verifiers, token, later.kind === "refused" ? (before ?? later) : before),
      );
    }
    if (verdict?.kind === "accepted") {
      return verdict.identity;
    }
    refusal ??= verdict?.kind === "refused" ? verdict : undefined;
  }
  throw refusal === undefined
    ? unauthenticated("CREDENTIALS_INVALID", "the token is not known here")
    : unauthenticated(refusal.reason, refusal.message);
}

/** Who calls, if that is enough. Throws PERMISSION_DENIED. */
function permit(identity: Identity, required: Role, what: string): Principal {
  const { id, role } = identity;
  if (role !== undefined && includesRole(role, required)) {
    return { id, role };
  }
  const has = role === undefined ? "has no role" : `has the role ${role}`;
  const hint = role === undefined && identity.missingRole ? `: ${identity.missingRole}` : "";
  throw domainConnectError({
    code: Code.PermissionDenied,
    reason: "PERMISSION_DENIED",
    message: `${what} needs the role ${required}, and ${id} ${has}${hint}; use credentials of the role ${required}`,
    metadata: { required_role: required, role: role ?? "none", principal: id },
    headers: { "www-authenticate": challenge("insufficient_scope") },
  });
}

function unauthenticated(reason: RefusalReason, message: string): ConnectError {
  return domainConnectError({
    code: Code.Unauthenticated,
    reason,
    message: `${message}: send an API key or a JSON Web Token as a bearer token, which clients of Toolplane take from TOOLPLANE_TOKEN or --token`,
    headers: {
      "www-authenticate": challenge(reason === "CREDENTIALS_MISSING" ? undefined : "invalid_token"),
    },
  });
}

/** RFC 6750, section 3. */
function challenge(error: "invalid_token" | "insufficient_scope" | undefined): string {
  return `Bearer realm="toolplane"${error === undefined ? "" : `, error="${error}"`}`;
}
