import type { ServiceImpl } from "@connectrpc/connect";
import type { SampleService } from "./sample-service.ts";

export const sampleImplementation: ServiceImpl<typeof SampleService> = {
  echo: ({ value }) => ({ value }),
  reflect: (request) => request,
  measure: ({ value }) => ({ value: value.byteLength }),
  async *count({ value }) {
    for (let number = 1; number <= value; number++) {
      yield { value: number };
    }
  },
  async *flood() {
    for (;;) {
      yield { value: new Uint8Array(64 * 1024) };
    }
  },
  async join(requests) {
    const texts: string[] = [];
    for await (const { value } of requests) {
      texts.push(value);
    }
    return { value: texts.join(" ") };
  },
  async *chat(requests) {
    for await (const { value } of requests) {
      yield { value: `${value}!` };
    }
  },
};
