// Creates elements, and updates the page to match a new tree of elements. Text always becomes a text node. Nothing here
// parses HTML, so stored data can never become markup or script.

/** @typedef {Node | string | number | null | false | undefined} Child */

/**
 * Creates an element. Attributes that are null, undefined or false are left out; `true` sets an attribute without
 * value.
 *
 * @param {string} tag
 * @param {Record<string, string | number | boolean | null | undefined> | null} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/**
 * Changes the children of `parent` to match `next`. It changes only what differs, so that focus, selection and scroll
 * positions stay during the refresh every two seconds. Elements with the same `data-key` are matched, even if other
 * elements are added or removed around them.
 *
 * @param {Element} parent
 * @param {Iterable<Node>} next
 */
export function morphChildren(parent, next) {
  const wanted = [...next];
  const wantedKeys = new Set(wanted.map(keyOf));
  /** @type {Map<string, ChildNode>} */
  const keyed = new Map();
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key === null) continue;
    // Elements that are no longer wanted are removed first. The others are then already in place and are not moved,
    // because moving an element loses the focus.
    if (wantedKeys.has(key)) keyed.set(key, child);
    else child.remove();
  }
  let cursor = parent.firstChild;
  for (const node of wanted) {
    const key = keyOf(node);
    const match = key === null ? unkeyed(cursor, node) : keyed.get(key);
    if (!match) {
      parent.insertBefore(node, cursor);
      continue;
    }
    if (match === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(match, cursor);
    morph(match, node);
  }
  while (cursor) {
    const rest = cursor.nextSibling;
    cursor.remove();
    cursor = rest;
  }
}

/**
 * @param {ChildNode | null} current
 * @param {Node} next
 */
function unkeyed(current, next) {
  return current && keyOf(current) === null && current.nodeName === next.nodeName ? current : undefined;
}

/** @param {Node} node */
function keyOf(node) {
  return node instanceof Element ? node.getAttribute("data-key") : null;
}

/**
 * @param {Node} current
 * @param {Node} next
 */
function morph(current, next) {
  if (!(current instanceof Element && next instanceof Element)) {
    if (current.nodeValue !== next.nodeValue) current.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...current.attributes]) {
    if (!next.hasAttribute(name)) current.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  morphChildren(current, next.childNodes);
}
