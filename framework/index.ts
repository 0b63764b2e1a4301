export {
  type AuthenticateOptions,
  type Authentication,
  authenticate,
} from "./access/authenticate.ts";
export { type CachedVerifierOptions, cachedVerifier } from "./access/cached-verifier.ts";
export { type JwtVerifierOptions, jwtVerifier } from "./access/jwt-verifier.ts";
export { createKeySource, type KeySourceOptions } from "./access/key-source.ts";
export { includesRole, type RequiredRole, roleOf } from "./access/role-of.ts";
export type { Identity, RefusalReason, Verdict, Verifier } from "./access/verifier.ts";
export { type Clock, MAX_TIMER_MS, systemClock } from "./clock.ts";
export { errorDomain, toConnectError } from "./errors/connect-error.ts";
export {
  DomainError,
  type DomainErrorInit,
  type FieldViolation,
  invalidArgument,
  notFound,
  type PreconditionViolation,
  type QuotaViolation,
} from "./errors/domain-error.ts";
export { wordRule } from "./errors/rule-wording.ts";
export { toStatus } from "./errors/status.ts";
export type { FinishedCall, Gate } from "./interceptors/begin-call.ts";
export {
  anonymous,
  type CallContext,
  callContext,
  type Principal,
  principalKey,
  principalOf,
  type Role,
} from "./interceptors/call-context.ts";
export { type CreateLoggerOptions, createLogger, type Logger, type LogLevel } from "./logging.ts";
export { closeOnSignals } from "./serving/close-on-signals.ts";
export type { CorsOptions } from "./serving/cors.ts";
export { createHealth, type Health, type HealthState } from "./serving/health.ts";
export { isLoopback } from "./serving/host-check.ts";
export { defaultLimits, type ServeLimits } from "./serving/limits.ts";
export { checkListenAddress } from "./serving/listen-address.ts";
export type { TlsOptions } from "./serving/listener.ts";
export { type NodeRequest, type NodeResponse, writeChunk } from "./serving/node-http.ts";
export { reflectionRoutes } from "./serving/reflection.ts";
export { sendJson } from "./serving/refusal.ts";
export {
  createRegistration,
  type Registration,
  type RegistrationOptions,
  type RegistrationState,
} from "./serving/registration.ts";
export type { HttpHandler } from "./serving/request-handler.ts";
export type { RegisterOptions } from "./serving/self-registration.ts";
export { type ServeOptions, type Server, serve } from "./serving/serve.ts";
export type { MethodStreams } from "./serving/stream-meter.ts";
