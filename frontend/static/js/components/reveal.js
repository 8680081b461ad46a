/** <llamora-reveal>: a passphrase field with a word beside it that shows and hides what is typed. */
class Reveal extends HTMLElement {
  connectedCallback() {
    const field = this.querySelector("input");
    if (!field || this.querySelector("button")) return;
    const { show, showName, hide, hideName } = document.body.dataset;
    const button = document.createElement("button");
    const turn = (isShown) => {
      field.type = isShown ? "text" : "password";
      button.textContent = isShown ? hide : show;
      button.ariaLabel = isShown ? hideName : showName;
    };
    Object.assign(button, { type: "button", className: "text-button" });
    button.setAttribute("aria-controls", field.id);
    button.addEventListener("click", () => {
      turn(field.type === "password");
      field.focus();
    });
    // A passphrase left showing would be offered to the browser's memory as ordinary text.
    field.form?.addEventListener("submit", () => turn(false));
    this.append(button);
    turn(false);
  }
}

customElements.define("llamora-reveal", Reveal);
