import { ExitCode } from "./exit-code.ts";
import type { Io } from "./io.ts";
import { createProgram } from "./program.ts";

const interruption = new AbortController();

const io: Io = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: interruption.signal,
  interrupt: () => interruption.abort(),
  now: () => Date.now(),
};

// The first interruption lets the command end in good order; a second one does not wait for that.
process.once("SIGINT", () => {
  interruption.abort();
  process.once("SIGINT", () => process.exit(ExitCode.interrupted));
});

// The reader of a pipe has seen enough, as `head` does: nothing went wrong.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(ExitCode.ok);
});

process.exitCode = await createProgram(io).run(process.argv.slice(2));
// A terminal or pipe on stdin that was never read to its end would keep the process.
process.stdin.unref?.();
