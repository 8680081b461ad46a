// Short names for what people put into a journal; not all there are. A name may stand for several.
const NAMES = `
smile 😄 grin 😁 joy 😂 laugh 😆 rofl 🤣 blush 😊 slight_smile 🙂 wink 😉 relieved 😌 in_love 😍 kiss 😘 yum 😋 tongue 😛
nerd 🤓 cool 😎 star_struck 🤩 party_face 🥳 unamused 😒 disappointed 😞 pensive 😔 worried 😟 confused 😕 frown ☹️
weary 😩 pleading 🥺 cry 😢 sob 😭 angry 😠 rage 😡 exploding_head 🤯 flushed 😳 hot_face 🥵 cold_face 🥶 scared 😱 sweat 😓
hug 🤗 thinking 🤔 shush 🤫 neutral 😐 grimace 😬 eye_roll 🙄 surprised 😮 sleepy 😪 sleeping 😴 yawn 🥱 dizzy_face 😵
sneeze 🤧 mask 😷 fever 🤒 hurt 🤕 melting 🫠 ghost 👻 skull 💀 robot 🤖 clap 👏 wave 👋 victory ✌️ crossed_fingers 🤞
point_right 👉 thumbs_up 👍 thumbs_down 👎 fist ✊ muscle 💪 pray 🙏 handshake 🤝 writing ✍️ raised_hand ✋ shrug 🤷
facepalm 🤦 eyes 👀 ear 👂 brain 🧠 tooth 🦷 bone 🦴 footprints 👣 baby 👶 child 🧒 woman 👩 man 👨 family 👪 couple 💑
heart ❤️ yellow_heart 💛 green_heart 💚 blue_heart 💙 black_heart 🖤 white_heart 🤍 broken_heart 💔 two_hearts 💕
sparkling_heart 💖 letter_heart 💌 star ⭐ glowing_star 🌟 sparkles ✨ fire 🔥 droplet 💧 wave_water 🌊 rainbow 🌈 sun ☀️
sunrise 🌅 sunset 🌇 partly_cloudy ⛅ cloud ☁️ rain 🌧️ storm ⛈️ lightning ⚡ snow ❄️ snowman ⛄ fog 🌫️ wind 💨
umbrella ☔ thermometer 🌡️ moon 🌙 full_moon 🌕 night 🌃 earth 🌍 mountain ⛰️ beach 🏖️ island 🏝️ camping 🏕️ forest 🌲
tree 🌳 palm 🌴 cactus 🌵 seedling 🌱 herb 🌿 clover 🍀 leaf 🍃 fallen_leaf 🍂 maple_leaf 🍁 mushroom 🍄 blossom 🌸 rose 🌹
sunflower 🌻 tulip 🌷 bouquet 💐 dog 🐶 cat 🐱 mouse 🐭 rabbit 🐰 fox 🦊 bear 🐻 panda 🐼 tiger 🐯 lion 🦁 cow 🐮 pig 🐷 frog 🐸
monkey 🐵 chicken 🐔 penguin 🐧 bird 🐦 chick 🐤 duck 🦆 owl 🦉 swan 🦢 wolf 🐺 horse 🐴 unicorn 🦄 bee 🐝 bug 🐛 butterfly 🦋
snail 🐌 turtle 🐢 fish 🐟 dolphin 🐬 whale 🐳 elephant 🐘 sheep 🐑 squirrel 🐿️ hedgehog 🦔 paw_prints 🐾 apple 🍎 pear 🍐
orange 🍊 lemon 🍋 banana 🍌 watermelon 🍉 strawberry 🍓 cherries 🍒 tomato 🍅 avocado 🥑 potato 🥔 carrot 🥕 corn 🌽
bread 🍞 croissant 🥐 cheese 🧀 egg 🍳 pancakes 🥞 burger 🍔 pizza 🍕 sandwich 🥪 salad 🥗 soup 🍲 noodles 🍜 spaghetti 🍝
sushi 🍣 rice 🍚 ice_cream 🍦 cake 🍰 birthday 🎂 chocolate 🍫 milk 🥛 coffee ☕ tea 🍵 wine 🍷 beer 🍺 cheers 🥂 cocktail 🍸
fork_knife 🍴 football ⚽ tennis 🎾 running 🏃 walking 🚶 cycling 🚴 swimming 🏊 yoga 🧘 sailing ⛵ medal 🏅 trophy 🏆
target 🎯 dice 🎲 chess ♟️ puzzle 🧩 game 🎮 art 🎨 theatre 🎭 film 🎬 camera 📷 music 🎵 singing 🎤 headphones 🎧 guitar 🎸
piano 🎹 dancing 💃 balloon 🎈 party 🎉 gift 🎁 car 🚗 bus 🚌 train 🚆 bicycle 🚲 plane ✈️ rocket 🚀 ship 🚢 anchor ⚓
house 🏠 garden 🏡 hospital 🏥 school 🏫 church ⛪ bridge 🌉 tent ⛺ map 🗺️ compass 🧭 bed 🛏️ sofa 🛋️ door 🚪 bath 🛁
shower 🚿 broom 🧹 key 🔑 lock 🔒 bulb 💡 candle 🕯️ phone 📱 computer 💻 clock 🕰️ alarm ⏰ calendar 📅 book 📖 books 📚
notebook 📓 pencil ✏️ pen 🖊️ memo 📝 letter ✉️ package 📦 scissors ✂️ wrench 🔧 telescope 🔭 pill 💊 money 💰 chart 📈
chart_down 📉 shopping 🛒 shirt 👕 shoes 👟 boots 🥾 glasses 👓 ring 💍 crown 👑 bag 👜 yarn 🧶 check ✅ cross ❌ warning ⚠️
hundred 💯 recycle ♻️ arrow_right ➡️ arrow_left ⬅️ repeat 🔁 speech 💬 thought 💭 bell 🔔 zzz 💤 music_notes 🎶 flag 🏁
`;

const words = NAMES.trim().split(/\s+/);
const all = words.flatMap((name, place) => (place % 2 ? [] : [[name, words[place + 1]]]));

/** The emoji of exactly this name, or undefined. */
export const emojiOf = (name) => all.find(([known]) => known === name)?.[1];

/** At most so many [name, emoji], first those whose name begins with it, then those with a word that does. */
export function emojiLike(start, most) {
  const wanted = start.toLowerCase();
  const begins = all.filter(([name]) => name.startsWith(wanted));
  const within = all.filter(([name]) => !name.startsWith(wanted) && name.includes(`_${wanted}`));
  return [...begins, ...within].slice(0, most);
}
