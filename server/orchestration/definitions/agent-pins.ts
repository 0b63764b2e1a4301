import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { ModelGateway } from "../models/model.ts";
import type { Definitions } from "./definitions.ts";

/** The agents of a run, at the versions that it will use. */
export interface AgentPins {
  /** Version 0 is the newest. Throws NOT_FOUND, or what `ModelGateway.find` throws for its model. */
  pin(name: string, version: number): Promise<Agent>;
  /** All that were pinned, each once. */
  all(): readonly Agent[];
}

export function createAgentPins(
  agents: Pick<Definitions<Agent>, "get">,
  gateway: Pick<ModelGateway, "find">,
): AgentPins {
  const asked = new Map<string, Agent>();
  const found = new Map<string, Agent>();
  return {
    async pin(name, version) {
      const key = `${name}@${version}`;
      const known = asked.get(key);
      if (known) {
        return known;
      }
      const agent = await agents.get(name, version);
      gateway.find(agent.model);
      asked.set(key, agent);
      found.set(`${name}@${agent.version}`, agent);
      return agent;
    },
    all: () => [...found.values()],
  };
}
