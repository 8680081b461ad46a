// What is pasted is shown as it was. Rich text becomes Markdown, and signs in its words stay signs. It is read in a
// document that shows, runs and fetches nothing. Loaded with the first paste.

const FORMATTED = "b,strong,i,em,a[href],h1,h2,h3,h4,h5,h6,li,blockquote,code,pre,table,hr,s,del,[data-style]";
const IGNORED = /^(script|style|title|meta|link|head|template|svg|object|iframe|button|select)$/i;
const WORD_ITEM = /mso-list:\s*\S+\s+level(\d)/; // Word has no lists but paragraphs that look like one
const BLOCK =
  /^([UOD]L|LI|D[TD]|P|DIV|H[1-6R]|BLOCKQUOTE|PRE|TABLE|SECTION|ARTICLE|HEADER|FOOTER|MAIN|ASIDE|NAV|FIG.*|ADDRESS|FORM|BODY)$/;

const isBlock = (node) => BLOCK.test(node.nodeName);
const lines = (text, first, rest) =>
  text
    .split("\n")
    .map((line, number) => (number ? (line ? rest + line : line) : first + line))
    .join("\n");

// At the beginning of a line: heading, quotation, item, number, underline or row of a table.
const AT_START =
  /^([ \t]*)(?:(#{1,6}(?=\s|$)|>|[-+*](?=\s|$)|(?:=+|-+)[ \t]*$|[|:-][|: -]*$)|(\d{1,9})(?=[.)](?:\s|$)))/gm;
const WITHIN = /[\\`*]|(?<!\w)_|_(?!\w)|~(?=~)|(?<=~)~|\[(?=[^\]]*\][[(:])|<(?=[^\s>]*[:@])|&(?=#?\w+;)/g;
const MARKDOWN =
  /^[ \t]*(```|~~~)|(\*\*|~~|`)\S[^\n]*\2|\]\(\S+\)|^#{1,6} [^\n]*\n|^[ \t]*([-*+]|\d{1,2}[.)]) [^\n]*\n+[ \t]*([-*+]|\d{1,2}[.)]) |^>[^\n]*\n>/m;

const keepStart = (text) =>
  text.replace(AT_START, (_, blanks, sign, number) => `${blanks}${number ?? ""}\\${sign ?? ""}`);
const keepWithin = (text) => text.replace(WITHIN, "\\$&");
const longest = (text, sign) => Math.max(0, ...(text.match(sign) ?? []).map((run) => run.length));

/**
 * What is typed for a paste. Plain text may be Markdown of another program, and is left alone but for what nobody means
 * as Markdown: a year before a full stop, and entities. Beside HTML it is words of a page: their signs stay signs, unless
 * they are many enough to be Markdown, or lines of code.
 */
export function textOf(html, plain) {
  const rich = html && markdownOf(html);
  if (rich) return rich;
  if (MARKDOWN.test(plain)) return plain;
  if (html && !/white-space:\s*pre|monospace/i.test(html)) return keepStart(plain.replace(/\S+/g, keepWord));
  return plain.replace(/^([ \t]*\d{3,9})(?=[.)]\s)/gm, "$1\\").replace(/\S+/g, (word) => {
    return word.includes("://") ? word : word.replace(/&(?=#?\w+;)/g, "\\&");
  });
}
const keepWord = (word) => (word.includes("://") ? word : keepWithin(word));

/** Markdown of a fragment of HTML; "" where there is nothing in it that plain text would lose. */
function markdownOf(html) {
  // Attributes of style would be refused, and complained of, by the policy of the page.
  const tame = html.replace(/<style[\s\S]*?<\/style>/gi, "").replace(/\sstyle=/gi, " data-style=");
  const { body } = new DOMParser().parseFromString(tame, "text/html");
  const isFormatted = [...body.querySelectorAll(FORMATTED)].some(
    (element) =>
      !element.matches("[data-style]:is(span,p,div)") ||
      marksOf(element).length ||
      WORD_ITEM.test(element.dataset.style),
  );
  return isFormatted ? blocks(body).join("\n\n") : "";
}

function blocks(parent) {
  const found = [];
  let run = "";
  let level; // of the item of Word's that came last
  const flush = () => {
    // Bold that ends where bold begins goes on.
    const text = run
      .replace(/ *\n */g, "\n")
      .replace(/(?<=[^\s\\*])(\*{6}|\*{4})(?=\*?[^\s*])/g, "")
      .trim();
    if (text) found.push(keepStart(text));
    run = "";
  };
  for (const node of parent.childNodes) {
    if (isBlock(node) || (node.firstElementChild && [...node.querySelectorAll("*")].some(isBlock))) {
      flush();
      const before = level;
      level = node.dataset.style?.match(WORD_ITEM)?.[1];
      if (level) found.push((before ? `${found.pop()}\n` : "") + wordItem(node, level));
      else found.push(...block(node));
    } else run += inline(node);
  }
  flush();
  return found;
}

function block(node) {
  const name = node.nodeName;
  if (/^H[1-6]$/.test(name)) {
    const words = inlines(node)
      .replace(/\s+/g, " ")
      .trim()
      .replace(/(?<!\S)#+$/, "\\$&");
    return words ? [`${"#".repeat(Number(name[1]))} ${words}`] : [];
  }
  if (name === "UL" || name === "OL") return [list(node)];
  if (name === "BLOCKQUOTE") return [blocks(node).join("\n\n").replace(/^/gm, "> ").replace(/^> $/gm, ">")];
  if (name === "PRE") {
    const fence = "`".repeat(Math.max(3, longest(node.textContent, /`+/g) + 1));
    return [`${fence}\n${node.textContent.replace(/\n$/, "")}\n${fence}`];
  }
  if (name === "HR") return ["---"];
  if (name === "TABLE") return table(node);
  return blocks(node);
}

function wordItem(node, level) {
  const sign = node.querySelector("[data-style*='Ignore']")?.textContent.trim();
  const mark = /^\w+[.)]/.test(sign) ? `${Number.parseInt(sign, 10) || 1}.` : "-";
  return `${"    ".repeat(level - 1)}${mark} ${keepStart(inlines(node).trim())}`;
}

function list(node) {
  const items = [];
  let number = Number(node.getAttribute("start") ?? 1);
  for (const child of node.children) {
    if (/^[UO]L$/.test(child.nodeName) && items.length) {
      items.push(lines(list(child), "  ", "  ")); // as some word processors nest them
    } else if (child.nodeName === "LI") {
      const box = child.querySelector(
        ":scope > input[type=checkbox], :scope > :is(p, label):first-child > input[type=checkbox]",
      );
      const mark =
        node.nodeName === "OL" ? `${number++}. ` : box ? `- [${box.hasAttribute("checked") ? "x" : " "}] ` : "- ";
      items.push(lines(blocks(child).join("\n"), mark, " ".repeat(mark.length - (box ? 4 : 0))));
    }
  }
  return items.join("\n");
}

function table(node) {
  const all = [...node.rows];
  if (all.every(({ cells }) => cells.length < 2)) return all.flatMap(({ cells }) => [...cells].flatMap(blocks)); // no table
  const rows = all.map((row) =>
    [...row.cells].map((cell) => blocks(cell).join(" ").replace(/\s+/g, " ").replaceAll("|", "\\|")),
  );
  const row = (cells) => `| ${cells.join(" | ")} |`;
  return [[row(rows[0]), row(rows[0].map(() => "---")), ...rows.slice(1).map(row)].join("\n")];
}

function marksOf({ nodeName: name, dataset = {} }) {
  const style = dataset.style ?? "";
  const weight = style.match(/font-weight:\s*(\w+)/)?.[1];
  const isBold = weight ? weight === "bold" || Number(weight) >= 600 : name === "B" || name === "STRONG";
  const slant = style.match(/font-style:\s*(\w+)/)?.[1];
  const isItalic = slant ? slant !== "normal" : name === "I" || name === "EM" || name === "CITE";
  return [isBold && "**", isItalic && "*", (name === "S" || name === "DEL") && "~~"].filter(Boolean);
}

const inlines = (node) => [...node.childNodes].map(inline).join("");

function inline(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    return keepWithin(node.data.replace(/[\s\u00a0]+/g, " "));
  }
  const { nodeName: name } = node;
  if (node.nodeType !== Node.ELEMENT_NODE || IGNORED.test(name)) return "";
  if (/mso-list:\s*Ignore/.test(node.dataset?.style)) return "";
  if (name === "BR") return "\n";
  if (name === "IMG") return node.alt;
  if (name === "CODE" || name === "KBD" || name === "SAMP") return code(node.textContent);
  let text = inlines(node);
  if (!text.trim()) return text;
  const [, before, words, after] = text.match(/^(\s*)([\s\S]*?)(\s*)$/);
  text = words;
  for (const mark of marksOf(node)) text = mark + text + mark;
  const address = name === "A" ? (node.getAttribute("href") ?? "") : "";
  if (/^(https?:|mailto:)/i.test(address) && address !== words) text = `[${text}](${address.replaceAll(" ", "%20")})`;
  return before + text + after;
}

/** Code that begins or ends with a backtick, or with blanks on both sides, has one blank more: Markdown takes it off. */
function code(text) {
  const fence = "`".repeat(longest(text, /`+/g) + 1);
  const blank = /^`|`$|^ .*\S.* $/s.test(text) ? " " : "";
  return text && fence + blank + text + blank + fence;
}
