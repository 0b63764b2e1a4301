export { type Clock, MAX_TIMER_MS, systemClock } from "./clock.ts";
export {
  DomainError,
  type DomainErrorInit,
  type FieldViolation,
  invalidArgument,
  notFound,
  type PreconditionViolation,
} from "./errors/domain-error.ts";
