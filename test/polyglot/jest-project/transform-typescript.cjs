const { transformSync } = require("esbuild");

/** Lets Jest run tests in TypeScript that are written for Vitest and use what both have. */
module.exports = {
  process(source) {
    const { code } = transformSync(source, { loader: "ts", format: "cjs" });
    return { code: code.replaceAll('require("vitest")', 'require("@jest/globals")') };
  },
};
