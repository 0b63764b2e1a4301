import { createByteLru } from "@toolplane/framework/policies";
import { Idempotency, Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { AuthorPolicy } from "../backends/invocation.ts";
import type { FallbackSettings, OutboundSettings, ToolPolicySettings } from "../config/outbound.ts";
import type { ResolvedTool } from "../registry/registry.ts";

/** How calls of one tool are made. */
export interface Plan {
  /** The deadline of a call that names none, in milliseconds. */
  readonly timeoutMs: number;
  /** How often a call is tried in all. */
  readonly attempts: number;
  /** Whether a call may reach the backend twice although it carries no request id. */
  readonly repeatable: boolean;
  /** Whether identical calls at the same time share one. */
  readonly shared: boolean;
  /** How long an answer may be reused, in milliseconds; 0: not at all. */
  readonly cacheTtlMs: number;
  /** When a second call is started on another instance, in milliseconds; undefined: never. */
  readonly hedgeDelayMs: number | undefined;
  readonly fallback: FallbackSettings | undefined;
  /** The configured policy that applies; its limits are shared by all tools that match it. */
  readonly policy: ToolPolicySettings | undefined;
}

export interface Plans {
  of(
    tool: Pick<ResolvedTool, "name" | "idempotency" | "cacheTtlMs" | "streaming">,
    author: AuthorPolicy,
  ): Plan;
}

/** Tools whose policies are remembered. Looking one up again costs a comparison with every pattern. */
const REMEMBERED_TOOLS = 10_000;

/**
 * Decides how a tool is called: what the operator configured for it stands above what its author says, and that above
 * what holds for all tools.
 */
export function createPlans(
  outbound: Pick<OutboundSettings, "tools" | "retry" | "deduplication" | "cache">,
  defaultTimeoutMs: number,
): Plans {
  const patterns = outbound.tools.map((policy) => ({ policy, pattern: toPattern(policy.tool) }));
  const known = createByteLru<{ readonly policy: ToolPolicySettings | undefined }>({
    maxEntries: REMEMBERED_TOOLS,
  });

  function policyFor(name: string): ToolPolicySettings | undefined {
    if (patterns.length === 0) {
      return undefined;
    }
    let found = known.get(name);
    if (!found) {
      found = { policy: patterns.find(({ pattern }) => pattern.test(name))?.policy };
      known.set(name, found, 1);
    }
    return found.policy;
  }

  return {
    of(tool, author) {
      const policy = policyFor(tool.name);
      const harmless =
        tool.idempotency === Idempotency.NO_SIDE_EFFECTS || tool.idempotency === Idempotency.IDEMPOTENT;
      const readsOnly = tool.idempotency === Idempotency.NO_SIDE_EFFECTS || policy?.idempotent === true;
      const unary = tool.streaming === Streaming.UNARY;
      const cacheTtlMs =
        unary && outbound.cache !== undefined && readsOnly ? (policy?.cacheTtlMs ?? tool.cacheTtlMs ?? 0) : 0;
      return {
        timeoutMs: policy?.timeoutMs ?? author.timeoutMs ?? defaultTimeoutMs,
        attempts: policy?.retryAttempts ?? author.attempts ?? outbound.retry.attempts,
        repeatable: harmless || policy?.idempotent === true,
        shared:
          unary && outbound.deduplication !== undefined && !policy?.unshared && (author.shared ?? readsOnly),
        cacheTtlMs,
        hedgeDelayMs: policy?.hedgeDelayMs,
        // What may be reused for a while is better than nothing a while later.
        fallback: unary ? (policy?.fallback ?? keptAnswer(outbound.cache, cacheTtlMs)) : undefined,
        policy,
      };
    },
  };
}

function keptAnswer(cache: OutboundSettings["cache"], cacheTtlMs: number): FallbackSettings | undefined {
  return cache && cacheTtlMs > 0 && cache.maxStaleMs > 0
    ? { kind: "last-good", maxAgeMs: cacheTtlMs + cache.maxStaleMs }
    : undefined;
}

/** A name in which `*` stands for any text, in as many places as one likes. */
function toPattern(name: string): RegExp {
  const text = name
    .split("*")
    .map((part) => RegExp.escape(part))
    .join(".*");
  return new RegExp(`^${text}$`, "s");
}
