import type { ServerSinkOptions } from "../reporting/server-sink.ts";
import type { TestEventInit } from "../runners/runner.ts";
import { createSpoolWriter, SPOOL_VARIABLE } from "../runners/spool.ts";

/** Where a reporter's events go. Nothing that it does throws: reporting does not decide over tests. */
export interface Sink {
  write(event: TestEventInit): void;
  /** Resolves when every event has arrived, or cannot arrive. */
  end(): Promise<void>;
}

/** What a user may set on a reporter that uploads by itself. Each has an environment variable of the same meaning. */
export type ReporterOptions = Pick<ServerSinkOptions, "url" | "token" | "project" | "environment">;

export interface SinkOptions extends ReporterOptions {
  /** What runs the tests, such as `vitest`. */
  readonly framework: string;
  /** Such as `vitest 5.1.1`. */
  readonly frameworkVersion?: string | undefined;
}

/**
 * Writes to the spool file of the process that started the tests, where there is one: its lines outlive this process.
 * Otherwise uploads to the server that the options or TOOLPLANE_URL name. Without a server, tests run as if there was no
 * reporter, so that it may stay in a project's configuration.
 */
export function createSink(options: SinkOptions): Sink {
  const spoolFile = process.env[SPOOL_VARIABLE];
  if (spoolFile) {
    const writer = createSpoolWriter(spoolFile);
    return {
      write: (event) => writer.write(event),
      async end() {
        writer.close();
      },
    };
  }
  if (options.url || process.env["TOOLPLANE_URL"]) {
    return createUploadingSink(options);
  }
  return { write() {}, async end() {} };
}

/** The uploader and all that it needs are loaded only where they are used. */
function createUploadingSink(options: SinkOptions): Sink {
  const early: TestEventInit[] = [];
  let write = (event: TestEventInit) => {
    early.push(event);
  };
  const opened = import("../reporting/server-sink.ts").then(({ createServerSink }) => {
    const sink = createServerSink(options);
    for (const event of early) {
      sink.write(event);
    }
    write = (event) => sink.write(event);
    return sink;
  });
  opened.catch(warn);
  return {
    write: (event) => write(event),
    async end() {
      try {
        await (await opened).end();
      } catch (error) {
        warn(error);
      }
    },
  };
}

function warn(error: unknown): void {
  process.stderr.write(
    `toolplane: the tests are not reported: ${error instanceof Error ? error.message : error}\n`,
  );
}
