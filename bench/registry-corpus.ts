import type { JsonObject } from "@bufbuild/protobuf";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { DiscoveredTool } from "../server/backends/source.ts";

const nouns =
  "weather forecast order invoice payment customer account ledger shipment inventory product catalog review user profile session token policy rule metric alert incident deployment build artifact image cluster node volume bucket object file document page comment thread message channel topic queue job task schedule calendar event ticket issue project repository branch commit release package license".split(
    " ",
  );
const verbs =
  "get list create update delete search watch export import validate approve cancel retry archive restore assign send publish subscribe count".split(
    " ",
  );
const qualities =
  "daily hourly regional global internal external primary secondary archived active pending draft monthly weekly cached".split(
    " ",
  );

/** Numbers that look random and are the same every time (a linear congruential generator). */
export function createNumbers(seed = 42): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const capital = (word: string) => word.charAt(0).toUpperCase() + word.slice(1);

/** A service with tools as real ones are: names of a few words, a sentence of description, and nested schemas. */
export function describeService(index: number, toolCount: number): { name: string; tools: DiscoveredTool[] } {
  const number = createNumbers(index + 1);
  const pick = (words: readonly string[]) => words[number(words.length)] ?? "";
  const subject = pick(nouns);
  const tools = Array.from({ length: toolCount }, (_, position): DiscoveredTool => {
    const [verb, quality, object] = [
      verbs[(position * 2 + number(2)) % verbs.length] ?? "",
      pick(qualities),
      pick(nouns),
    ];
    const method = `${capital(verb)}${capital(quality)}${capital(object)}`;
    return {
      name: `acme.${subject}.v1.${capital(subject)}Service.${method}${position}`,
      title: `${capital(verb)} ${quality} ${object}`,
      description: `${capital(verb)}s the ${quality} ${object} of a ${subject} and returns its state; use it when the ${pick(nouns)} has changed.`,
      tags: [subject, `team${index % 40}`],
      kind: ToolKind.RPC,
      streaming: Streaming.UNARY,
      idempotency: Idempotency.UNSPECIFIED,
      sourceName: `acme.${subject}.v1.${capital(subject)}Service/${method}${position}`,
      inputSchema: describeMessage([
        `${object}_id`,
        `${quality}_only`,
        "page_size",
        "page_token",
        `${pick(nouns)}_name`,
      ]),
      outputSchema: describeMessage([
        object,
        "create_time",
        "update_time",
        `${quality}_count`,
        "next_page_token",
      ]),
      deprecated: false,
    };
  });
  return { name: `${subject}-${pick(qualities)}-${index}`, tools };
}

function describeMessage(fields: readonly string[]): JsonObject {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    properties: Object.fromEntries(
      fields.map((field) => [
        field,
        { type: "string", description: `The ${field.replaceAll("_", " ")} that is meant.`, maxLength: 1024 },
      ]),
    ),
    additionalProperties: false,
  };
}

/** What people and models type when they look for a tool. */
export function describeQuery(number: (below: number) => number): string {
  const pick = (words: readonly string[]) => words[number(words.length)] ?? "";
  const forms = [
    () => pick(nouns),
    () => `${pick(verbs)} ${pick(nouns)}`,
    () => `${pick(verbs)} the ${pick(qualities)} ${pick(nouns)} of a ${pick(nouns)}`,
    () => `${capital(pick(verbs))}${capital(pick(qualities))}${capital(pick(nouns))}`,
    () => pick(verbs),
    () => pick(nouns).slice(0, 4),
    () => pick(nouns).replace(/[aeiou]/, ""),
    () => `how do I ${pick(verbs)} a ${pick(nouns)}?`,
  ];
  return (forms[number(forms.length)] ?? forms[0] ?? String)();
}
