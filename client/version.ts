import manifest from "./package.json" with { type: "json" };

/** The version of the client and of the command line, as published. */
export const version: string = manifest.version;
