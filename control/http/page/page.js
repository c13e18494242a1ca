"use strict";
// Lists the operations of openapi.json, shows their schemas, sends requests. The key is never stored.

const find = (id) => document.getElementById(id);

/** Make an element; children are elements or texts, which are never read as HTML. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

let api = null;

function resolve(schema) {
  const path = schema && schema.$ref;
  return path ? path.slice(2).split("/").reduce((place, name) => place[name], api) : schema;
}

/** An example of a schema: its defaults, its first choices, what is required. */
function example(schema, depth = 0) {
  const known = resolve(schema) || {};
  if (depth > 6) return null;
  if ("default" in known && depth > 0) return known.default;
  if (known.const !== undefined) return known.const;
  if (known.enum) return known.enum[0];
  const choices = known.anyOf || known.oneOf || known.allOf;
  if (choices) return example(choices.find((each) => each.type !== "null") || {}, depth);
  switch (known.type) {
    case "object": {
      const value = {};
      for (const name of known.required || []) value[name] = example((known.properties || {})[name], depth + 1);
      return value;
    }
    case "array": return [];
    case "integer":
    case "number": return known.minimum ?? 0;
    case "boolean": return false;
    case "string": return known.format === "date-time" ? "2026-01-01T00:00:00Z" : "";
    default: return null;
  }
}

/** A schema in few words, one line for each field, in the notation of JSON with types for values. */
function sketch(schema, indent = "", depth = 0) {
  if (!schema) return "any";
  const known = resolve(schema);
  if (depth > 5) return "…";
  if (known.enum) return known.enum.map((each) => JSON.stringify(each)).join(" | ");
  const choices = known.anyOf || known.oneOf || known.allOf;
  if (choices) return choices.map((each) => sketch(each, indent, depth)).join(" | ");
  if (known.type === "array") return `[${sketch(known.items, indent, depth + 1)}, …]`;
  if (known.type === "object" && known.properties) {
    const deeper = `${indent}  `;
    const required = new Set(known.required || []);
    const lines = Object.entries(known.properties).map(([name, field]) =>
      `${deeper}${name}${required.has(name) ? "" : "?"}: ${sketch(field, deeper, depth + 1)}`);
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  if (known.type === "object") return `{<name>: ${sketch(known.additionalProperties || {}, indent, depth + 1)}}`;
  const limits = ["minimum", "maximum", "minLength", "maxLength", "pattern"]
    .filter((limit) => limit in known).map((limit) => `${limit} ${known[limit]}`);
  const type = known.format || known.type || "any";
  return limits.length ? `${type} (${limits.join(", ")})` : type;
}

function inputFor(parameter) {
  const schema = resolve(parameter.schema) || {};
  const choices = schema.enum || (schema.type === "boolean" ? ["false", "true"] : null);
  if (choices) {
    return make("select", {}, make("option", { value: "" }, ""), ...choices.map((each) => make("option", {}, String(each))));
  }
  return make("input", { placeholder: schema.default === undefined || schema.default === null ? "" : String(schema.default) });
}

async function send(method, path, fields, body, output, button) {
  const headers = { Accept: "application/json" };
  const query = new URLSearchParams();
  let target = path;
  for (const { parameter, input } of fields) {
    const value = input.value;
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (parameter.in === "query") query.append(parameter.name, value);
    else headers[parameter.name] = value;
  }
  const key = find("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body && body.value.trim()) headers["Content-Type"] = "application/json";
  if ([...query].length) target += `?${query}`;
  button.disabled = true;
  output.replaceChildren(make("p", { class: "hint" }, `${method} ${target} …`));
  const begun = performance.now();
  try {
    const answer = await fetch(target.replace(/^\//, ""), {
      method, headers, body: headers["Content-Type"] ? body.value : undefined, credentials: "omit", cache: "no-store",
    });
    const text = await answer.text();
    const took = Math.round(performance.now() - begun);
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown as it is */ }
    const notable = ["content-type", "etag", "retry-after", "allow"]
      .filter((name) => answer.headers.has(name)).map((name) => `${name}: ${answer.headers.get(name)}`);
    output.replaceChildren(
      make("p", { class: answer.ok ? "" : "bad" }, `${answer.status} ${answer.statusText}, ${took} ms`),
      make("pre", {}, [...notable, "", shown || "(no body)"].join("\n")));
  } catch (error) {
    output.replaceChildren(make("p", { class: "bad" }, `No answer: ${error.message}`));
  } finally {
    button.disabled = false;
  }
}

function describe(path, method, operation) {
  const content = make("div", {}, make("p", { class: "hint" }, operation.description || ""));
  const fields = (operation.parameters || []).map((parameter) => ({ parameter, input: inputFor(parameter) }));
  if (fields.length) {
    content.append(make("h3", {}, "Parameters"), make("table", {}, ...fields.map(({ parameter, input }) =>
      make("tr", {},
        make("td", {}, make("code", {}, parameter.name), parameter.required ? " *" : ""),
        make("td", {}, input),
        make("td", { class: "hint" }, `${parameter.in}: ${sketch(parameter.schema)} ${parameter.description || ""}`)))));
  }
  let body = null;
  if (operation.requestBody) {
    const schema = operation.requestBody.content["application/json"].schema;
    body = make("textarea", { spellcheck: false, value: JSON.stringify(example(schema), null, 2) });
    content.append(make("h3", {}, "Body"), body, make("pre", {}, sketch(schema)));
  }
  const output = make("div", { "aria-live": "polite" });
  const button = make("button", { type: "button" }, "Send");
  button.addEventListener("click", () => send(method.toUpperCase(), path, fields, body, output, button));
  content.append(button, output, make("h3", {}, "Answers"));
  content.append(make("table", {}, ...Object.entries(operation.responses).map(([status, answer]) => {
    const [media] = Object.values(answer.content || {});
    const cell = make("td", {}, make("span", { class: "hint" }, answer.description));
    if (media && Number(status) < 300) cell.append(make("pre", {}, sketch(media.schema)));
    return make("tr", {}, make("td", {}, make("code", {}, status)), cell);
  })));
  return content;
}

function entry(path, method, operation) {
  const details = make("details", { class: "operation" },
    make("summary", {},
      make("span", { class: `method ${method}` }, method.toUpperCase()),
      make("span", { class: "path" }, path),
      make("span", { class: "about" }, operation.summary)));
  // Made when it is opened: a hundred forms at once are slow.
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(describe(path, method, operation));
  });
  details.words = `${method} ${path} ${operation.summary}`.toLowerCase();
  return details;
}

async function main() {
  const answer = await fetch("openapi.json", { credentials: "omit" });
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  api = await answer.json();
  find("title").replaceChildren(api.info.title, " ", make("small", {}, api.info.version));
  find("summary").textContent = api.info.description;
  const groups = new Map(api.tags.map(({ name }) => [name, []]));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      groups.get(operation.tags[0]).push(entry(path, method, operation));
    }
  }
  const sections = [...groups].map(([name, entries]) => make("section", {}, make("h2", {}, name), ...entries));
  find("operations").replaceChildren(...sections);
  find("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const section of sections) {
      const entries = [...section.querySelectorAll("details.operation")];
      for (const each of entries) each.hidden = !each.words.includes(wanted);
      section.hidden = entries.every((each) => each.hidden);
    }
  });
  if (location.hash.length > 1) {
    const wanted = decodeURIComponent(location.hash.slice(1)).toLowerCase();
    for (const each of document.querySelectorAll("details.operation")) each.open = each.words.startsWith(wanted);
  }
}

main().catch((error) => {
  find("operations").replaceChildren(make("p", { class: "bad" }, `The document could not be loaded: ${error.message}`));
});
