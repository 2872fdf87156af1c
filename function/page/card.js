// A photo and its caption: what it says, where the model looked, and what a person may do with it.

import * as api from "/page/api.js";
import { attention, place } from "/page/attention.js";

const template = document.querySelector("#card");
const dialog = document.querySelector("#confirm");
const live = document.querySelector("#live");

export const announce = (text) => { live.textContent = text; };

/**
 * A card in `parent`. `bytes` gives the photo as a Blob that the API takes, to ask where the model looked. The name is
 * for people, and for what is read aloud.
 */
export function makeCard(parent, name, bytes, put = "append") {
  const card = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  const [image, said, editor, veil] = [find("img"), find(".said"), find(".editor"), find(".veil")];
  let shown = null; // the record, or what the API says of the bytes

  find(".name").textContent = name;
  image.alt = `${name}, not yet captioned`;
  image.onerror = () => {
    image.hidden = true;
    find(".placeholder").textContent = `${name}: this browser cannot show it`;
    find(".placeholder").hidden = false;
  };

  /** What is going on, with how much of it is done where that is known. */
  function wait(text, part) {
    find(".problem").hidden = true;
    find(".status").hidden = false;
    find(".status").textContent = text;
    find("progress").hidden = false;
    find("progress").setAttribute("aria-label", `${name}: ${text}`);
    if (part === undefined) find("progress").removeAttribute("value");
    else find("progress").value = part;
  }

  function rest() {
    find(".status").hidden = find("progress").hidden = true;
  }

  /** What went wrong; with `again`, a button that tries it again. */
  function fail(text, again) {
    rest();
    find(".problem").hidden = false;
    find(".problem p").textContent = text;
    find(".retry").hidden = !again;
    find(".retry").onclick = again;
    announce(`${name}: ${text}`);
  }

  function show(record) {
    rest();
    shown = record;
    find(".problem").hidden = true;
    if (record.status === "rejected") return fail(record.reason);
    said.hidden = false;
    image.alt = record.caption;
    find(".text").textContent = record.caption;
    find(".by").hidden = record.caption_by !== "person";
    find(".sure").hidden = record.confidence === undefined;
    if (record.confidence !== undefined) {
      find("meter").value = record.confidence;
      find("meter").setAttribute("aria-label", "Confidence");
      find(".sure span").textContent = `${percent(record.confidence)} sure`;
    }
    const others = record.captions.filter((each) => each.text !== record.caption);
    find("details").hidden = !others.length;
    find("ol").replaceChildren(...others.map(alternative));
    find(".edit").hidden = find(".delete").hidden = !record.key;
    if (record.attention) look(record.attention);
    else offerLook();
  }

  function alternative({ text, confidence }) {
    const line = document.createElement("li");
    line.append(text);
    if (confidence !== undefined) {
      const sure = document.createElement("span");
      sure.textContent = percent(confidence);
      line.append(sure);
    }
    return line;
  }

  /** Words that show where the model looked, as they are hovered, focused or tapped. */
  function look(seen) {
    const words = seen.map(({ word, weights }, number) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "word", textContent: word, tabIndex: number ? -1 : 0 });
      button.ariaPressed = "false";
      const where = place(weights);
      button.setAttribute("aria-description", `looked at the ${where}`);
      const enter = () => {
        leave();
        button.ariaPressed = "true";
        attention(veil, image, weights);
        veil.hidden = image.hidden;
        find(".looked").textContent = `“${word}”: looked at the ${where}`;
      };
      const leave = () => {
        for (const each of words) each.ariaPressed = "false";
        veil.hidden = true;
        find(".looked").textContent = "";
      };
      button.onmouseenter = button.onfocus = button.onclick = enter;
      button.onmouseleave = button.onblur = leave;
      button.onkeydown = (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const next = step && words[number + step];
        if (next) {
          button.tabIndex = -1;
          next.tabIndex = 0;
          next.focus();
        }
      };
      return button;
    });
    const line = find(".text");
    line.setAttribute("role", "toolbar"); // one stop of the Tab key, arrows within
    line.setAttribute("aria-label", `Where the model looked: ${shown.caption}`);
    let at = 0; // in the caption, where words are joined as a sentence's are
    line.replaceChildren(...words.flatMap((word) => {
      const begins = shown.caption.indexOf(word.textContent, at);
      const between = shown.caption.slice(at, begins);
      at = begins + word.textContent.length;
      return [between, word];
    }));
  }

  /** Asks where the model looked only once somebody points at its caption. */
  function offerLook() {
    const line = find(".text");
    line.removeAttribute("role");
    line.removeAttribute("aria-label");
    if (shown.caption_by === "person") return;
    const first = async () => {
      line.onmouseenter = line.ontouchstart = null;
      const asked = shown;
      try {
        const photo = await bytes();
        if (photo.size > api.config.largest_body) return;
        const { caption, attention: seen } = await api.caption(photo);
        if (seen && caption === asked.caption && shown === asked) look(seen);
      } catch (error) {
        if (!(error instanceof api.Failed)) throw error; // else the caption stands without it
      }
    };
    line.onmouseenter = line.ontouchstart = first;
    if (parent.id === "new") first();
  }

  function edit(open) {
    editor.hidden = !open;
    said.hidden = open;
    if (open) {
      const text = find("textarea");
      text.value = shown.caption;
      text.setAttribute("aria-label", `The caption of ${name}`);
      text.focus();
    } else {
      find(".edit").focus();
    }
  }

  async function copy(button, text) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser does not allow it";
    }
    announce(button.textContent);
    setTimeout(() => { button.textContent = label; }, 1500);
  }

  find(".copy").onclick = (event) => copy(event.target, shown.caption);
  find(".copy-alt").onclick = (event) => copy(event.target, `alt="${escape(shown.caption)}"`);
  find(".edit").onclick = () => edit(true);
  find(".cancel").onclick = () => edit(false);
  find("textarea").onkeydown = (event) => {
    if (event.key === "Escape") edit(false);
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      editor.requestSubmit();
    }
  };
  editor.onsubmit = async (event) => {
    event.preventDefault();
    const text = find("textarea").value.replace(/\s+/g, " ").trim();
    if (!text) return;
    try {
      show(await api.correct(shown.key, text));
      edit(false);
      announce("The caption is corrected.");
    } catch (error) {
      fail(error.message);
    }
  };
  find(".delete").onclick = () => {
    dialog.returnValue = "";
    dialog.onclose = async () => {
      if (dialog.returnValue !== "delete") return find(".delete").focus();
      try {
        await api.remove(shown.key);
        const next = card.nextElementSibling ?? card.previousElementSibling;
        card.remove();
        (next?.querySelector("button:not([hidden])") ?? document.querySelector("#files")).focus();
        announce("The caption is deleted.");
      } catch (error) {
        fail(error.message);
      }
    };
    dialog.showModal();
  };
  for (const button of card.querySelectorAll("button:not(.word)")) {
    if (!button.closest("form")) button.setAttribute("aria-description", name);
  }
  parent[put](card);
  return { image, wait, fail, show };
}

const percent = (part) => `${Math.round(part * 100)} %`;
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
