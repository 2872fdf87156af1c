// The page: photos come in, captions come out, and those of before are shown below.

import * as api from "/page/api.js";
import { announce, makeCard } from "/page/card.js";
import * as session from "/page/sign-in.js";

const AT_ONCE = 3; // photos on their way
const find = (selector) => document.querySelector(selector);
const { config } = api;
const [drop, banner, gallery, more] = [find("#drop"), find("#banner"), find("#gallery"), find("#more")];

// ---- photos come in

const waiting = [];
let working = 0;

function take(files) {
  for (const file of files) {
    const name = file.name || "pasted photo";
    const type = api.mediaType(file);
    const photo = new Blob([file], { type }); // a HEIC file may come without its type
    const card = makeCard(find("#new"), name, async () => photo, "prepend");
    card.image.src = URL.createObjectURL(file);
    const limit = config.photos ? config.largest_upload : config.largest_body;
    if (!config.media_types.includes(type)) {
      card.fail(`This is no photo: ${readable()} can be read.`);
    } else if (file.size > limit) {
      card.fail(`This photo has ${megabytes(file.size)}; at most ${megabytes(limit)} are taken.`);
    } else {
      enqueue(card, file, photo, name);
    }
  }
}

function enqueue(card, file, photo, name) {
  card.wait("Waiting");
  waiting.push(async () => {
    try {
      card.show(config.photos ? await keep(card, file, photo.type) : await glance(card, photo));
      announce(`${name}: ${card.image.alt}`);
    } catch (error) {
      card.fail(error.message, () => enqueue(card, file, photo, name));
      if (error.status === 401) signInAgain();
    }
  });
  work();
}

async function keep(card, file, type) {
  card.wait("Uploading", 0);
  const key = await api.upload(file, type, (part) => card.wait("Uploading", part));
  card.wait("Looking at it");
  return api.settled(key);
}

function glance(card, photo) {
  card.wait("Looking at it");
  return api.caption(photo);
}

async function work() {
  if (working >= AT_ONCE || !waiting.length) return;
  working += 1;
  await waiting.shift()();
  working -= 1;
  work();
}

for (const input of [find("#files"), find("#camera")]) {
  input.onchange = () => {
    take([...input.files]);
    input.value = ""; // the same file may be chosen again
  };
}
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length && !find("#caption").hidden) take(files);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault(); // else the browser leaves for the file
  drop.classList.remove("over");
  if (!find("#caption").hidden) take([...event.dataTransfer.files]);
});

// ---- those of before

let cursor = null;

async function showMore(first) {
  gallery.ariaBusy = "true";
  more.hidden = true;
  const state = find("#gallery-state");
  state.textContent = "Loading …";
  try {
    const page = await api.list(cursor);
    cursor = page.cursor;
    const cards = page.items.map(add);
    state.textContent = find("#items").children.length || cursor ? "" : "Nothing yet: the photos you add will be here next time.";
    more.textContent = "Show older photos";
    more.hidden = !cursor;
    if (!first) announce(`${cards.length} older photos`);
    if (cursor && !cards.length) await showMore(first); // a page may be empty though others follow
  } catch (error) {
    if (error.status === 401) return signInAgain();
    state.textContent = `The list cannot be shown: ${error.message}`;
    more.textContent = "Try again";
    more.hidden = false;
  } finally {
    gallery.ariaBusy = "false";
  }
}

function add(item) {
  const name = item.key.split("/").at(-1);
  const fetched = async () => (await fetch(item.image_url)).blob();
  const card = makeCard(find("#items"), name, fetched);
  card.image.loading = "lazy";
  if (item.width) Object.assign(card.image, { width: item.width, height: item.height });
  card.image.src = item.image_url;
  card.show(item);
  return card;
}

more.onclick = () => showMore(false);

// ---- who is there, and whether anybody is

function signInAgain() {
  session.forget();
  find("#sign-in").hidden = false;
  find("#sign-in-button").hidden = !config.sign_in;
  find("#token-form").hidden = Boolean(config.sign_in);
  find("#sign-out").hidden = true;
}

find("#sign-in-button").onclick = () => session.begin(config.sign_in);
find("#sign-out").onclick = () => {
  if (config.sign_in) return session.end(config.sign_in);
  session.forget();
  location.reload();
};
find("#token-form").onsubmit = (event) => {
  event.preventDefault();
  session.keep(find("#token").value.trim());
  location.reload();
};

function say(text) {
  banner.hidden = !text;
  banner.textContent = text;
}

window.addEventListener("offline", () => say("You are offline. What is on the page stays; photos can be sent when you are back."));
window.addEventListener("online", () => say(""));
window.addEventListener("reach", ({ detail: yes }) => say(yes ? "" : "The server cannot be reached. Try again in a moment."));

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1).replace(/\.0$/, "")} MB`;
const readable = () => config.media_types.map((type) => type.slice(6).toUpperCase()).join(", ");

async function start() {
  find("#files").accept = [...config.media_types, ".heic", ".heif"].join();
  find("#limits").textContent = `${readable()}, up to ${megabytes(config.photos ? config.largest_upload : config.largest_body)} each`
    + (config.photos ? "; they are kept in the bucket" : "; nothing is kept");
  try {
    await session.finish();
  } catch (error) {
    say(error.message);
  }
  const needed = config.auth === "COGNITO" || config.auth === "JWT";
  find("#sign-out").hidden = !(needed && session.signedIn());
  if (needed && !session.signedIn()) return signInAgain();
  find("#caption").hidden = false;
  gallery.hidden = !config.photos;
  api.health().then(({ model }) => { find("#model").textContent = `· model ${model}`; }, () => {});
  if (config.photos) await showMore(true);
}

await start();
