import { basename } from "node:path";
import { createToolplane } from "../node.ts";
import type { TestEventInit } from "../runners/runner.ts";
import { createEventBuffer } from "./event-buffer.ts";
import { describeOutcome } from "./outcome.ts";
import { gatherRunContext } from "./run-context.ts";
import { createUploader } from "./uploader.ts";

export interface ServerSinkOptions {
  /** What runs the tests, such as `vitest`. */
  readonly framework: string;
  /** Such as `vitest 5.1.1`. */
  readonly frameworkVersion?: string | undefined;
  /** The server. Default: the environment variable `TOOLPLANE_URL`. */
  readonly url?: string | undefined;
  /** Default: the environment variable `TOOLPLANE_TOKEN`, else none. */
  readonly token?: string | undefined;
  /** Default: the environment variable `TOOLPLANE_PROJECT`, else the name of the working directory. */
  readonly project?: string | undefined;
  /** Default: the environment variable `TOOLPLANE_ENVIRONMENT`, else the server's. */
  readonly environment?: string | undefined;
  /** Told what goes wrong. Default: a line on standard error. */
  readonly warn?: ((message: string) => void) | undefined;
}

/** Takes the events of a reporter that has no parent to hand them to, and uploads them by itself. */
export interface ServerSink {
  write(event: TestEventInit): void;
  /** Resolves when everything is on the server, or cannot be brought there. Never rejects. */
  end(): Promise<void>;
}

export function createServerSink(options: ServerSinkOptions): ServerSink {
  const warn = options.warn ?? ((message) => process.stderr.write(`toolplane: ${message}\n`));
  const source = createEventBuffer();
  const directory = process.cwd();
  const toolplane = createToolplane({ url: options.url, token: options.token });
  const uploading = gatherRunContext(directory, process.env).then((context) =>
    createUploader({
      client: toolplane.tests,
      source,
      run: {
        project: options.project ?? (process.env["TOOLPLANE_PROJECT"] || projectNameOf(directory)),
        environment: options.environment ?? process.env["TOOLPLANE_ENVIRONMENT"] ?? "",
        framework: options.framework,
        context: { ...context, frameworkVersion: options.frameworkVersion ?? "" },
      },
    }),
  );
  return {
    write(event) {
      void source.add(event);
    },
    async end() {
      // The server judges by the tests: the command's exit code is not known in here.
      const outcome = await (await uploading).finish({});
      if (outcome.kind !== "finished") warn(describeOutcome(outcome));
      toolplane.close();
    },
  };
}

/** The name of a project that was given none: that of its folder, as far as servers take it. */
export function projectNameOf(directory: string): string {
  const name = basename(directory)
    .replaceAll(/[^a-zA-Z0-9@/._ -]+/g, "-")
    .replace(/^[^a-zA-Z0-9@]+/, "")
    .slice(0, 128);
  return name === "" ? "default" : name;
}
