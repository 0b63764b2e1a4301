import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import {
  ServerReflection,
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "@toolplane/gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionAlpha } from "@toolplane/gen/grpc/reflection/v1alpha/reflection_pb.js";
import type { ConnectionPool } from "../../pool/index.ts";
import type { Target } from "../../pool/target.ts";

export type Question = ServerReflectionRequest["messageRequest"];
export type Answer = ServerReflectionResponse["messageResponse"];

/** A conversation with a reflection service. */
export interface ReflectionStream {
  /** Asks all at once; the answers come in the order of the questions. */
  ask(questions: readonly Question[]): Promise<Answer[]>;
  close(): void;
}

/** The largest single answer: a file with all that it imports. */
const MAX_ANSWER_BYTES = 32 * 1024 * 1024;
/** Questions that are on their way at once, so that neither side has to buffer many answers. */
const WINDOW = 16;

/** The two versions differ in nothing but their names. */
const methods = {
  v1: ServerReflection.method.serverReflectionInfo,
  v1alpha: {
    ...ServerReflectionAlpha.method.serverReflectionInfo,
    input: ServerReflectionRequestSchema,
    output: ServerReflectionResponseSchema,
  },
};

export function openReflection(
  pool: ConnectionPool,
  target: Target,
  version: "v1" | "v1alpha",
  signal: AbortSignal,
): ReflectionStream {
  const transport = pool.transport(target, { maxMessageBytes: MAX_ANSWER_BYTES });
  const leave = new AbortController();
  const questions = createWritableIterable<MessageInitShape<typeof ServerReflectionRequestSchema>>();
  const answers = transport
    .stream(methods[version], AbortSignal.any([signal, leave.signal]), undefined, undefined, questions)
    .then((response) => response.message[Symbol.asyncIterator]());
  // Whoever asks sees the failure; without a question there is nobody to tell.
  answers.catch(() => undefined);

  async function next(): Promise<Answer> {
    const result = await (await answers).next();
    if (result.done) {
      throw new ConnectError("the server ended the conversation early", Code.Unavailable);
    }
    return result.value.messageResponse;
  }

  return {
    async ask(all) {
      const received: Answer[] = [];
      for (let start = 0; start < all.length; start += WINDOW) {
        const batch = all.slice(start, start + WINDOW);
        for (const question of batch) {
          void send(question);
        }
        for (const _ of batch) {
          received.push(await next());
        }
      }
      return received;
    },
    close() {
      questions.close();
      leave.abort(new ConnectError("reflection is done", Code.Canceled));
    },
  };

  /** A write ends with the stream; how that ended is what reading tells. */
  async function send(messageRequest: Question): Promise<void> {
    try {
      await questions.write(create(ServerReflectionRequestSchema, { messageRequest }));
    } catch {
      await answers.catch(() => undefined);
    }
  }
}
