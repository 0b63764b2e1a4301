// Runs in the browser: drives the generated client against a server on another origin and leaves what it saw on `window`.
import { createToolplane } from "@toolplane/client/web";

interface Seen {
  services: string[];
  hits: string[];
  result: unknown;
  streamed: unknown[];
  watched: string[];
  refusal: string;
  done: boolean;
}

declare const window: {
  seen: Seen;
  serverUrl: string;
  watched: string[];
  watchRun: (runId: string) => Promise<void>;
};

async function run(): Promise<void> {
  const toolplane = createToolplane({ url: window.serverUrl });
  const seen: Seen = {
    services: [],
    hits: [],
    result: undefined,
    streamed: [],
    watched: [],
    refusal: "",
    done: false,
  };
  window.seen = seen;

  const { services } = await toolplane.registry.listServices({});
  seen.services = services.map(({ name }) => name);

  const { hits } = await toolplane.registry.searchTools({ query: "list services" });
  seen.hits = hits.flatMap(({ tool }) => (tool ? [tool.alias] : []));

  seen.result = await toolplane.callTool("toolplane.GetService", { service: { name: "toolplane" } });

  for await (const event of toolplane.callToolStream("toolplane.WatchServices", {})) {
    seen.streamed.push(event);
    break;
  }

  for await (const { event } of toolplane.watchServices()) {
    seen.watched.push(event.case ?? "");
    if (event.case === "synced") {
      break;
    }
  }

  seen.refusal = await toolplane.callTool("toolplane.GetService", { service: { nam: "x" } }).then(
    () => "",
    (error: unknown) => String(error),
  );
  seen.done = true;
}

window.watchRun = async (runId) => {
  window.watched = [];
  for await (const news of createToolplane({ url: window.serverUrl }).watchRun(runId)) {
    window.watched.push(news.kind === "event" ? (news.event.kind.case ?? "") : news.kind);
  }
};

await run();
