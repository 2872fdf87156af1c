// The API and the bucket: all requests that this page makes are made here.

import { token } from "/page/sign-in.js";

export const config = await (await fetch("/page/config.json")).json();

/** An answer that is no success, or none at all; `message` is for a person. `status` is 0 where nobody answered. */
export class Failed extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The server cannot be reached.";

/** Whether the server answered last time; who listens to `reach` on window is told of a change. */
function reached(yes) {
  window.dispatchEvent(new CustomEvent("reach", { detail: yes }));
}

async function ask(method, path, body, type) {
  const headers = { Accept: "application/json" };
  const held = await token();
  if (held) headers.Authorization = `Bearer ${held}`;
  if (type) headers["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body });
  } catch {
    reached(false);
    throw new Failed(UNREACHABLE);
  }
  reached(true);
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  throw new Failed(said.detail ?? said.message ?? `The server answered ${answer.status}.`, answer.status);
}

const item = (key) => `/captions/item?key=${encodeURIComponent(key)}`;

export const health = () => ask("GET", "/health");
export const caption = (blob) => ask("POST", "/captions?explain=true", blob, blob.type);
export const list = (cursor) => ask("GET", `/captions?limit=12${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
export const correct = (key, text) => ask("PUT", item(key), JSON.stringify({ caption: text }), "application/json");
export const remove = (key) => ask("DELETE", item(key));

/** Sends a photo straight to the bucket, telling `progress` how much of it (0 to 1) is there; its key. */
export async function upload(file, type, progress) {
  const wish = { filename: file.name || "photo", content_type: type, bytes: file.size };
  const form = await ask("POST", "/uploads", JSON.stringify(wish), "application/json");
  const fields = new FormData();
  for (const [name, value] of Object.entries(form.fields)) fields.append(name, value);
  fields.append("file", file);
  await new Promise((done, fail) => {
    const request = new XMLHttpRequest(); // fetch tells no progress
    request.open("POST", form.url);
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onload = () => (request.status < 300 ? done() : fail(new Failed("The bucket did not take the photo.", request.status)));
    request.onerror = () => fail(new Failed("The bucket cannot be reached."));
    request.send(fields);
  });
  return form.key;
}

/** The record of a photo that was uploaded, as soon as there is one. */
export async function settled(key) {
  const end = Date.now() + 120_000;
  for (let pause = 300; Date.now() < end; pause = Math.min(pause * 1.3, 3000)) {
    await new Promise((wake) => setTimeout(wake, pause));
    try {
      return await ask("GET", item(key));
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
  throw new Failed("The photo is uploaded; its caption takes longer than usual. It will be among those captioned before.");
}

/** The media type as the API names it; what browsers leave out goes by the file's name. */
export function mediaType(file) {
  const suffix = /\.(\w+)$/.exec(file.name ?? "")?.[1].toLowerCase();
  const type = file.type || `image/${{ jpg: "jpeg", heif: "heic", tif: "tiff" }[suffix] ?? suffix}`;
  return { "image/jpg": "image/jpeg", "image/heif": "image/heic" }[type] ?? type;
}
