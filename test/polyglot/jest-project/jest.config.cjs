module.exports = { testMatch: ["**/*.fixture.cjs"], transform: {} };
