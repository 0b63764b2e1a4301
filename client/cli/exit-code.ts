import { Code } from "@connectrpc/connect";

/** What the command ends with. The numbers are documented and do not change. */
export const ExitCode = {
  ok: 0,
  /** The command, the tool or the run failed, a health check found something, or tests failed. */
  failure: 1,
  /** The command line itself is wrong. */
  usage: 2,
  notFound: 3,
  /** The server, or the service behind a tool, cannot be reached. */
  unavailable: 4,
  /** Arguments, or the configuration of a server, are not as they must be. */
  invalidArguments: 5,
  /** The token is missing, wrong, or not allowed to do this. */
  notPermitted: 6,
  timeout: 7,
  /** A limit was reached; later it may work. */
  limited: 8,
  /** A run was cancelled or did not come to its end, or two test runs cannot be compared. */
  incomplete: 9,
  /** 128 + SIGINT. */
  interrupted: 130,
} as const;

export function exitCodeOf(code: Code): number {
  switch (code) {
    case Code.InvalidArgument:
    case Code.OutOfRange:
      return ExitCode.invalidArguments;
    case Code.NotFound:
      return ExitCode.notFound;
    case Code.Unavailable:
      return ExitCode.unavailable;
    case Code.PermissionDenied:
    case Code.Unauthenticated:
      return ExitCode.notPermitted;
    case Code.DeadlineExceeded:
      return ExitCode.timeout;
    case Code.ResourceExhausted:
      return ExitCode.limited;
    case Code.Canceled:
    case Code.Unknown:
    case Code.AlreadyExists:
    case Code.FailedPrecondition:
    case Code.Aborted:
    case Code.Unimplemented:
    case Code.Internal:
    case Code.DataLoss:
      return ExitCode.failure;
  }
}
