import { type Command, Option } from "commander";
import { examples, type Run } from "./run.ts";

export interface ListBreakersOptions {
  readonly state?: BreakerStateName;
  readonly limit: string;
}

export const BREAKER_STATES = ["closed", "open", "half-open", "isolated"] as const;
export type BreakerStateName = (typeof BREAKER_STATES)[number];

export function addBreakersCommands(program: Command, run: Run): void {
  const breakers = program
    .command("breakers")
    .alias("breaker")
    .summary("list, reset and isolate circuit breakers")
    .description(
      "Lists, resets and isolates circuit breakers of the server that answers. Without a verb: lists them.",
    )
    .addHelpText(
      "after",
      examples("toolplane breakers", "toolplane breakers reset service/weather/default/1.2.0"),
    );

  breakers
    .command("list", { isDefault: true })
    .description(
      "Lists breakers, those that refuse calls first, and instances that calls are kept away from.",
    )
    .argument("[service]", "only of this service")
    .addOption(new Option("--state <state>", "only in this state").choices(BREAKER_STATES))
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText(
      "after",
      examples(
        "toolplane breakers",
        "toolplane breakers list weather --state open",
        "toolplane breakers --json | jq -r '.breakers[].name'",
      ),
    )
    .action(
      run(async (context, service: string | undefined, options: ListBreakersOptions) =>
        (await import("../actions/breakers.ts")).listBreakers(context, service, options),
      ),
    );

  breakers
    .command("reset")
    .description("Closes a breaker and forgets its failures, or lets an instance back in.")
    .argument("<breaker>", "the breaker's name, or the id of an instance that calls are kept away from")
    .addHelpText(
      "after",
      examples(
        "toolplane breakers reset service/weather/default/1.2.0",
        "toolplane breakers reset weather-1",
      ),
    )
    .action(
      run(async (context, name: string) =>
        (await import("../actions/breakers.ts")).resetBreaker(context, name),
      ),
    );

  breakers
    .command("isolate")
    .description("Opens a breaker until it is reset, so that nothing is sent to what it watches over.")
    .argument("<breaker>", "the breaker's name; it need not have been used before")
    .addHelpText("after", examples("toolplane breakers isolate instance/weather/default/1.2.0/weather-1"))
    .action(
      run(async (context, name: string) =>
        (await import("../actions/breakers.ts")).isolateBreaker(context, name),
      ),
    );
}
