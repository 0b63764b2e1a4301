import {
  type HealthCheckSpec,
  Lifetime,
  type Problem,
  type Service,
  type Source,
} from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Terminal } from "../terminal.ts";
import { renderColumns } from "./columns.ts";
import { renderFacts, section } from "./facts.ts";
import { formatAge, formatDuration } from "./format.ts";
import { healthStatus, protocolName, serviceState } from "./states.ts";
import { oneLine, printable, proseWidth, wrap } from "./text-width.ts";

/** Everything about one service. */
export function renderService(terminal: Terminal, service: Service): string {
  const { paint, io } = terminal;
  const now = io.now();
  const state = serviceState(service.state, paint);
  const description = printable(service.description.trim());
  return [
    `${paint.bold(oneLine(service.title || service.name))}  ${state.style(state.text)}`,
    ...(description === "" ? [] : wrap(description, proseWidth(terminal)).map((line) => `  ${line}`)),
    "",
    renderFacts(paint, [
      ["Name", `${service.name} ${service.version} in ${service.environment}`],
      ["Tags", service.tags.join(", ")],
      ["Tools", service.toolCount.toLocaleString("en")],
      ["Source", sourceText(service.source)],
      ["Health check", healthCheckText(service.healthCheck)],
      [
        "Headers",
        service.headers
          .map(({ name, value }) => `${name}: ${value.case === "secret" ? `@${value.value}` : value.value}`)
          .join(", "),
      ],
      ...Object.entries(service.metadata).map(([key, value]) => [`  ${key}`, value] as const),
      ["Registered", service.createTime === undefined ? "" : formatAge(service.createTime, now)],
      ["Learnt", formatAge(service.discoverTime, now)],
      ["Digest", service.schemaDigest.slice(0, 12)],
    ]),
    ...(service.instances.length === 0
      ? []
      : section(paint, "Instances", renderInstances(terminal, service))),
    ...(service.problems.length === 0
      ? []
      : section(paint, "Problems", renderProblems(terminal, service.problems))),
  ].join("\n");
}

function renderInstances(terminal: Terminal, service: Service): string {
  const { paint, io } = terminal;
  return renderColumns(
    [
      { title: "INSTANCE", minWidth: 16 },
      { title: "ENDPOINT", minWidth: 16 },
      { title: "PROTOCOL", optional: true },
      { title: "HEALTH" },
      { title: "CHECKED", optional: true },
      { title: "LEASE", optional: true },
      { title: "MESSAGE", minWidth: 12 },
    ],
    service.instances.map((instance) => [
      instance.id,
      instance.endpoint,
      protocolName(instance.protocol),
      healthStatus(instance.health, paint),
      formatAge(instance.healthCheckTime, io.now()),
      instance.lifetime === Lifetime.PERMANENT ? "permanent" : formatDuration(instance.leaseTtl),
      { text: instance.healthMessage, style: paint.dim },
    ]),
    terminal.columns("  "),
  );
}

/** What keeps a service or its tools from working. */
export function renderProblems(terminal: Terminal, problems: readonly Problem[]): string {
  const { paint } = terminal;
  return renderColumns(
    [{ title: "TOOL", minWidth: 16 }, { title: "REASON" }, { title: "WHAT HAPPENED", minWidth: 24 }],
    problems.map(({ tool, reason, message }) => [
      tool || "all",
      { text: reason, style: paint.yellow },
      message,
    ]),
    terminal.columns("  "),
  );
}

function sourceText(source: Source | undefined): string {
  switch (source?.kind.case) {
    case "utcpManual": {
      const { manual } = source.kind.value;
      return manual.case === "url" ? `UTCP manual at ${manual.value}` : "UTCP manual given inline";
    }
    case "descriptors":
      return `descriptors given inline${only(source.kind.value.services)}`;
    case "grpcReflection":
      return `gRPC reflection${only(source.kind.value.services)}`;
    case undefined:
      return "gRPC reflection";
  }
}

function only(services: readonly string[]): string {
  return services.length === 0 ? "" : `, only ${services.join(", ")}`;
}

function healthCheckText(check: HealthCheckSpec | undefined): string {
  const every = check?.interval === undefined ? "" : `, every ${formatDuration(check.interval)}`;
  switch (check?.kind.case) {
    case "grpc":
      return `grpc.health.v1${check.kind.value.service && ` of ${check.kind.value.service}`}${every}`;
    case "http":
      return `GET ${check.kind.value.path}${every}`;
    case "tcp":
      return `TCP connection${every}`;
    case "none":
      return "none";
    case undefined:
      return `default${every}`;
  }
}
