import { type ClientHttp2Session, connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnalyzeTextRequestSchema } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";

// The client of bench/chain.ts, in a process of its own. It writes ready-made frames, so that the server is what a round
// waits for and not the client.

/** What to do: as many calls, each with another text. */
export interface LoadOrder {
  readonly url: string;
  readonly calls: number;
  readonly concurrency: number;
}

const sessions = new Map<string, ClientHttp2Session>();
let serial = 0;

function nextFrame(): Buffer {
  const text = `To be or not to be, that is the question, number ${serial++}`;
  const message = toBinary(AnalyzeTextRequestSchema, create(AnalyzeTextRequestSchema, { text }));
  const frame = Buffer.alloc(5 + message.byteLength);
  frame.writeUInt32BE(message.byteLength, 1);
  frame.set(message, 5);
  return frame;
}

function call(session: ClientHttp2Session, frame: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/examples.text.v1.TextService/AnalyzeText",
      "content-type": "application/grpc+proto",
      te: "trailers",
      authorization: "Bearer bench-key",
      "grpc-timeout": "30S",
    });
    stream.once("error", reject);
    stream.once("trailers", (trailers) => {
      if (trailers["grpc-status"] !== "0") {
        reject(new Error(`the call failed: ${trailers["grpc-status"]} ${trailers["grpc-message"]}`));
      }
    });
    stream.once("end", resolve);
    stream.resume();
    stream.end(frame);
  });
}

async function run({ url, calls, concurrency }: LoadOrder): Promise<number> {
  const session = sessions.get(url) ?? connect(url);
  sessions.set(url, session);
  const frames = Array.from({ length: calls }, nextFrame);
  const begin = performance.now();
  const worker = async () => {
    for (let frame = frames.pop(); frame !== undefined; frame = frames.pop()) {
      await call(session, frame);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return (performance.now() - begin) / 1_000;
}

process.on("message", async (order: LoadOrder) => {
  process.send?.({ seconds: await run(order) });
});
process.once("disconnect", () => process.exit());
