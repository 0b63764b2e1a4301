import { type Command, Option } from "commander";
import { collect } from "../input/pairs.ts";

export const OUTPUT_FORMATS = ["text", "json", "none"] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

/** How a run is shown. */
export interface FollowOptions {
  readonly output?: OutputFormat;
  readonly cancelOnInterrupt?: boolean;
}

/** How a run is started. */
export interface StartOptions extends FollowOptions {
  readonly label?: readonly string[];
  readonly requestId?: string;
  readonly detach?: boolean;
}

export function addFollowOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--output <format>",
        "what the run gives back: text for people, json alone on stdout, or none",
      ).choices(OUTPUT_FORMATS),
    )
    .option("--cancel-on-interrupt", "Ctrl-C cancels the run instead of leaving it to itself");
}

export function addStartOptions(command: Command): Command {
  return addFollowOptions(command)
    .option("--label <key=value>", "a label to find the run by; repeatable", collect)
    .option("--request-id <uuid>", "starts one run, however often it is asked for")
    .option("--detach", "print the run's id and leave it to itself");
}
