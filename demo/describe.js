// The buttons of a description: what is pressed becomes words of a command line, as the value of this component.
// `element`, `props`, `trigger` and `watch` are Gradio's.
const press = (button, on) => button.setAttribute("aria-pressed", on);
const pressed = (button) => button.getAttribute("aria-pressed") === "true";

function word(group) {
  const chips = [...group.querySelectorAll(".chip")].filter((chip) => !chip.matches(".any") && pressed(chip));
  if (!chips.length) return null;
  if (chips[0].dataset.word) return chips[0].dataset.word;
  const denied = pressed(group.querySelector(".deny"));
  const values = chips.map((chip) => chip.dataset.value).join(group.dataset.kind === "multi" && !denied ? "+" : "|");
  const sure = Number(group.querySelector("input").value);
  return `${group.dataset.group}${denied ? "!" : ""}=${values}${sure < 100 ? `@${sure / 100}` : ""}`;
}

function choose(group, chip) {
  const chips = [...group.querySelectorAll(".chip")];
  if (chip.matches(".any")) {
    chips.forEach((one) => press(one, one === chip));
    press(group.querySelector(".deny"), false);
    return;
  }
  const on = !pressed(chip);
  const none = chip.dataset.value === "none";
  for (const one of chips) {
    // Of two values only one can be, `none` goes with no other of several, and a whole word stands alone.
    const apart = group.dataset.kind === "binary" || one.dataset.word || chip.dataset.word
      || (group.dataset.kind === "multi" && (none || one.dataset.value === "none"));
    if (one !== chip && (one.matches(".any") || apart)) press(one, false);
  }
  press(chip, on);
}

function deny(group, button) {
  press(button, !pressed(button));
  group.querySelectorAll('[data-value="none"], [data-word]').forEach((one) => press(one, false));
}

// What follows from the pressed buttons: `any`, whether `none` may be denied, and the words.
function settle() {
  for (const group of element.querySelectorAll(".group")) {
    const chips = [...group.querySelectorAll(".chip:not(.any)")];
    const stated = chips.some(pressed);
    press(group.querySelector(".any"), !stated);
    group.classList.toggle("stated", stated);
    const denied = pressed(group.querySelector(".deny"));
    for (const none of group.querySelectorAll('[data-value="none"]')) none.disabled = denied;
  }
}

function say() {
  settle();
  props.value = [...element.querySelectorAll(".group")].map(word).filter(Boolean);
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const group = event.target.closest(".group");
  if (!button || !group) return;
  button.matches(".deny") ? deny(group, button) : choose(group, button);
  say();
});
element.addEventListener("input", (event) => {
  const output = event.target.parentElement.querySelector("output");
  if (!output) return;
  output.textContent = `${event.target.value} %`;
  event.target.setAttribute("value", event.target.value);
});
element.addEventListener("change", (event) => event.target.closest(".group") && say());
watch(["markup"], settle);
settle();
