// Make the calls that the first argument lists, all at once, and print what each one threw.

import OpenAI from "openai";

async function outcome({ name, url, resource, method, body, headers }) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 1 });
  try {
    await client[resource][method](body, { headers });
  } catch (error) {
    const { status, code, requestID } = error;
    return [name, { error: error.constructor.name, status, code, request_id: requestID }];
  }
  throw new Error(`${name}: it was not refused`);
}

const calls = JSON.parse(process.argv[2]);
console.log(JSON.stringify(Object.fromEntries(await Promise.all(calls.map(outcome)))));
